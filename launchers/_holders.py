"""Which job holds each cell, as a waiting driver sees it from one look to the next."""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from launchers._submission import Submission, elements_of, submissions
from launchers._told import Place


@dataclass
class Holders:
    """The places of the cells of a study.

    A cell may have been queued twice, by two people or two commands. Of its jobs the last one that is alive holds it;
    when that has ended, it goes on answering for the cell, and not one that was queued later and is long gone.

    Attributes:
        folder: the study's.
        submitted: all submissions, the oldest first.
        places: key of a cell -> where it is.
    """

    folder: Path
    submitted: list[Submission] = field(default_factory=list)
    places: dict[str, Place] = field(default_factory=dict)
    _alive: set[str] = field(default_factory=set)
    _before_last: dict[str, tuple[str, Place]] = field(default_factory=dict)  # key -> last submission, place before it

    def __post_init__(self) -> None:
        self.reread()

    def reread(self) -> None:
        """Read the folder: somebody else may have queued some cells again."""
        self.submitted = submissions(self.folder)
        self.find(self._alive)

    def find(self, alive: Collection[str]) -> None:
        """Find the places.

        Args:
            alive: jobs in the queue.
        """
        self._alive = set(alive)
        self.places = elements_of(self.submitted)
        for key, place in elements_of(self.submitted, self._alive).items():
            last = self.places[key][0].name
            if place[0].name != last:
                self._before_last[key] = last, place
            elif self.is_alive(place):
                self._before_last.pop(key, None)
        kept = {key: place for key, (last, place) in self._before_last.items() if self.places[key][0].name == last}
        self.places |= kept

    def is_alive(self, place: Place) -> bool:
        """Return whether the job of a place was in the queue at the last look."""
        _, array, index = place
        return array.ids[index] in self._alive
