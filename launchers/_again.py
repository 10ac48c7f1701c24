"""Lost cells that a waiting driver queues again by itself: which ones, how often, and with how much more.

Out of memory and the time limit are answered by more of it, a lost node and a preemption by the same once more. An
error in Python is never tried again: the next try would end as this one. How often is `max_retries` of the profile.

A cell that was begun is tried again in a job of its own, where it can harm no other one. So is each of several that a
job computed at once: nobody knows whose fault it was. Those behind them were not tried at all: they are queued again in
smaller packs, and it does not count.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import ceil
from pathlib import Path
from typing import Any

from launchers._profile import Profile, Resources
from launchers._slurm_facts import Partition
from launchers._submission import QueuedArray, Submission, SubmissionFolder
from launchers._told import Place
from suite.plan import Cell

RAISES = {"OUT_OF_MEMORY": "memory_gib", "TIMEOUT": "time_min"}
WORDS = {
    "OUT_OF_MEMORY": "ran out of memory",
    "TIMEOUT": "reached its time limit",
    "NODE_FAIL": "lost its node",
    "BOOT_FAIL": "lost its node",
    "LAUNCH_FAILED": "could not be started",
    "PREEMPTED": "was preempted",
}
INPUT = "INPUT"  # the cell's job found that an input of it was lost, which is queued again
BEHIND = "BEHIND"  # the cell's job was lost with another one of its cells, before it came to this one
UNCOUNTED = {INPUT: "lost an input", BEHIND: "ended before it was begun"}
SHOWN = 3  # cells in one line


@dataclass(frozen=True)
class Again:
    """Why a cell is queued once more, and with what.

    Attributes:
        cause: Slurm's word for how its job ended, or INPUT or BEHIND.
        number: of tries that a driver began by itself, this one included; those of INPUT and BEHIND do not count.
        resources: what it asks for now.
        raised: name of what was raised -> before and after.
    """

    cause: str
    number: int
    resources: Resources
    raised: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def told(self) -> dict[str, Any]:
        """Return it as it is written down."""
        raised = {name: list(pair) for name, pair in self.raised.items()}
        return {"cause": self.cause, "number": self.number, "raised": raised}


@dataclass
class Retries:
    """Decides what is queued again.

    Attributes:
        profile: says how often, and by what factor memory and time are raised.
        partition: returns what a partition has, so that no more is asked for; None where that is not known.
        queue: queues cells, by their keys.
    """

    profile: Profile
    partition: Callable[[str | None], Partition | None]
    queue: Callable[[Mapping[str, Again]], Submission | None]
    _partitions: dict[str | None, Partition | None] = field(default_factory=dict)

    def decide(self, cause: str, array: QueuedArray, number: int, *, alone: bool = False) -> Again | str:
        """Return how a lost cell is queued again, or why it is not; no words where nobody would expect that it is.

        Args:
            cause: Slurm's word for how its job ended.
            array: that held it.
            number: of tries that a driver began by itself.
            alone: whether it was begun, so that it gets a job of its own.
        """
        if cause not in WORDS:
            return ""
        if number >= self.profile.max_retries:
            return f"; max_retries = {number} of the profile was used up" if number else ""
        before_it = Resources(**array.resources)
        # Not with fewer processors: a site may give memory by their number.
        asked = before_it.model_copy(update={"cells_per_job": 1, "cells_at_once": 1} if alone else {})
        name = RAISES.get(cause)
        if name is None:
            return Again(cause, number + 1, asked)
        before = getattr(asked, name)
        if before is None:  # the site's default, of which nobody here knows how much it is
            return ""
        after = self._more(asked, name, before)
        if after <= before and name == "memory_gib" and asked.cells_at_once < before_it.cells_at_once:
            return Again(cause, number + 1, asked)  # it shares that memory no more
        if after <= before:
            return f"; {asked.partition or 'the default partition'} has no more"
        return Again(cause, number + 1, asked.model_copy(update={name: after}), {name: (before, after)})

    def behind(self, cause: str, array: QueuedArray, index: int, number: int) -> Again | str:
        """Return how a cell is queued again that its lost job did not come to, while it was at another; or nothing.

        As often as it takes. It ends: the one that was begun leaves the pack, and packs are halved each time, so that
        one bad cell after the other is found in few rounds.

        Args:
            cause: Slurm's word for how its job ended.
            array: that held it.
            index: of its element.
            number: of tries that a driver began by itself.
        """
        if cause == "CANCELLED" or self.profile.max_retries == 0:
            return ""
        asked = Resources(**array.resources)
        half = max(1, min(asked.cells_per_job, len(array.elements[index])) // 2)
        fewer = {"cells_per_job": half, "cells_at_once": min(half, asked.cells_at_once)}
        return Again(BEHIND, number, asked.model_copy(update=fewer))

    def _more(self, asked: Resources, name: str, before: float) -> float:
        """Return a raised amount, as much as the partition has at most."""
        if asked.partition not in self._partitions:
            self._partitions[asked.partition] = self.partition(asked.partition)
        there = self._partitions[asked.partition]
        most = (there.time_limit_min if name == "time_min" else there.memory_gib) if there else None
        after = before * self.profile.raise_factor
        if name == "time_min":
            after = ceil(after)
        return min(after, most) if most else after


def number_of(submission: Submission, key: str) -> int:
    """Return how many tries at a cell a driver began by itself, up to that submission."""
    return int(submission.again.get(key, {}).get("number", 0))


def in_words(told: Mapping[str, Any]) -> str:
    """Return why and with how much more a cell was queued again, as `told` wrote it down."""
    raised = "".join(f", {name} {after:g} instead of {before:g}" for name, (before, after) in told["raised"].items())
    words = WORDS | UNCOUNTED
    return f"queued again because its job {words.get(told['cause'], 'was lost')}{raised}"


def announced(again: Mapping[str, Again], cells: Mapping[str, Cell]) -> list[str]:
    """Return one line for each reason: the first of the cells, how many more, and with what they are queued again."""
    names: dict[str, list[str]] = {}
    for key, each in again.items():
        names.setdefault(in_words(each.told()), []).append(cells[key].id.name)
    return [f"{', '.join(found[:SHOWN])}{_more(len(found))}: {words}" for words, found in names.items()]


def _more(number: int) -> str:
    return f" and {number - SHOWN} more" if number > SHOWN else ""


def that_can_begin(
    again: Mapping[str, Again], cells: Sequence[Cell], ended: Collection[str], held: Collection[str]
) -> dict[str, Again]:
    """Return those of them whose inputs are there, in the queue, or among them.

    Args:
        again: by the keys of cells.
        cells: of the plan, every one after its inputs.
        ended: keys of cells with an end. Those that need a failed one have an end as well.
        held: keys of cells that a job in the queue holds.
    """
    found: dict[str, Again] = {}
    for cell in cells:
        key, needed = cell.id.key, {each.key for each in cell.inputs.values()}
        if key in again and all(each in ended or each in held or each in found for each in needed):
            found[key] = again[key]
    return found


def tell_again(study: Path, places: Mapping[str, Place], again: Mapping[str, Again]) -> None:
    """Write down, where the lost jobs told what they did, that their cells were queued again, and with what."""
    when = datetime.now(UTC).isoformat(timespec="seconds")
    for key, each in again.items():
        submission, array, index = places[key]
        event = {"event": "queued_again", "cell": key, "time_utc": when, **each.told()}
        with suppress(OSError):
            SubmissionFolder(study, submission.name).tell(array.number, index, event)
