"""What the jobs of a study told, each file read once for a whole look at the study."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launchers._submission import QueuedArray, Submission, SubmissionFolder

Place = tuple[Submission, QueuedArray, int]  # where a cell was queued: submission, array, element


@dataclass
class Told:
    """Reads the events of elements.

    Attributes:
        folder: the study's.
    """

    folder: Path
    _read: dict[tuple[str, int, int], list[dict[str, Any]]] = field(default_factory=dict)

    def forget(self) -> None:
        """Read everything anew."""
        self._read.clear()

    def of_element(self, place: Place) -> list[dict[str, Any]]:
        """Return what the element at a place told, the latest last."""
        submission, array, index = place
        key = (submission.name, array.number, index)
        if key not in self._read:
            self._read[key] = SubmissionFolder(self.folder, submission.name).told(array.number, index)
        return self._read[key]

    def of_cell(self, places: Mapping[str, Place], key: str) -> list[dict[str, Any]]:
        """Return what the job that holds a cell told of it, the latest last; nothing if none does."""
        events = self.of_element(places[key]) if key in places else []
        return [event for event in events if event.get("cell") == key]

    def is_begun(self, place: Place, key: str) -> bool:
        """Return whether the element at a place began a cell."""
        return key in self._begun(place)

    def is_behind(self, place: Place, key: str) -> bool:
        """Return whether the element at a place began other cells, but never came to this one."""
        begun = self._begun(place)
        return bool(begun) and key not in begun

    def _begun(self, place: Place) -> set[str]:
        return {event["cell"] for event in self.of_element(place) if event.get("event") == "started"}
