"""What was queued and what its jobs told, as files in the study's folder: any machine that sees it can read them.

    DIR/slurm/NAME/submission.json      which job holds which cells; NAME is also the name of the jobs
    DIR/slurm/NAME/array-000.json       the cells of one array, as its jobs read them
    DIR/slurm/NAME/events/000-12.jsonl  what element 12 told: a line when a try began, was paused, left, or ended
    DIR/slurm/NAME/jobs/                submitit's envelopes and the jobs' own output

These files explain. What is done is said by the store alone.
"""

import json
import os
import re
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from data.hdf5 import commit_bytes
from launchers._arrays import JobArray
from launchers._event_lines import ToldAgain, event_in
from launchers._folder_name import check_folder_name
from launchers._profile import Resources
from suite.errors import UserError
from suite.plan import Cell
from suite.store import CellId

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*-[0-9a-f]{8}")


@dataclass(frozen=True)
class QueuedArray:
    """One array in the queue: ids[i] is the job of the cells whose keys are elements[i]."""

    number: int
    wave: int
    resources: dict[str, Any]
    ids: tuple[str, ...]
    elements: tuple[tuple[str, ...], ...]

    __pydantic_config__ = ConfigDict(strict=True, extra="forbid")


@dataclass(frozen=True)
class Submission:
    """One call of submit.

    Attributes:
        name: of its jobs; random enough that no other submission has it. Job ids alone begin again at 1 when a
            controller is set up anew.
        state: "queuing" until all arrays are in the queue, "releasing" until they may run, then "queued"; "withdrawn"
            when it did not come to that, "cancelled" when somebody took its jobs back.
        profile: the profile as it was read.
        host: where it was submitted.
        time_utc: when, in ISO 8601.
        arrays: what was queued.
        again: key of a cell that a driver queued again by itself -> why, the how-manieth time, what was raised.
    """

    name: str
    state: str
    profile: dict[str, Any]
    host: str
    time_utc: str
    arrays: tuple[QueuedArray, ...] = ()
    again: dict[str, dict[str, Any]] = field(default_factory=dict)

    __pydantic_config__ = ConfigDict(strict=True, extra="forbid")

    def check(self, name: str) -> None:
        """Check what its types do not tell.

        Raises:
            ValueError: it is not the submission of that name, its time is none, or an array contradicts itself.
        """
        if self.name != name:
            raise ValueError(f"it is that of {self.name}")
        if datetime.fromisoformat(self.time_utc).tzinfo is None:
            raise ValueError(f"time_utc {self.time_utc} is in no time zone")
        for array in self.arrays:
            Resources.model_validate(array.resources)
            if len(array.ids) != len(array.elements):
                raise ValueError(f"array {array.number} has {len(array.elements)} elements and {len(array.ids)} jobs")
        for told in self.again.values():
            _AGAIN.validate_json(json.dumps(told))

    def holders(self) -> Iterator[tuple[str, QueuedArray, int]]:
        """Yield (key of a cell, its array, its element)."""
        for array in self.arrays:
            for index, keys in enumerate(array.elements):
                yield from ((key, array, index) for key in keys)


_SUBMISSION = TypeAdapter(Submission)
_AGAIN = TypeAdapter(ToldAgain)


@dataclass(frozen=True)
class SubmissionFolder:
    """The files of one submission."""

    study: Path
    name: str

    @property
    def path(self) -> Path:
        """Return DIR/slurm/NAME."""
        return self.study / "slurm" / self.name

    @property
    def jobs(self) -> Path:
        """Return the folder of submitit's files. Whoever can write there can run code as the user."""
        return self.path / "jobs"

    def begin(self, started: Submission) -> None:
        """Make the folders, the one of pickles for the user alone, and write what is begun.

        Raises:
            UserError: the study's folder cannot be named to Slurm.
            OSError: the folder takes no more files; nothing is left.
        """
        check_folder_name(self.path)
        try:
            # Others may have to tell events, but who could rename the folder of pickles could run code as the user.
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.mkdir(mode=0o755)
            (self.path / "events").mkdir()
            self.jobs.mkdir(mode=0o700)
            self.write(started)
        except OSError:
            self.remove()
            raise

    def remove(self) -> None:
        """Remove all of it, of which no job has begun."""
        shutil.rmtree(self.path, ignore_errors=True)
        with suppress(OSError):  # others are there
            self.path.parent.rmdir()

    def write(self, submission: Submission) -> None:
        """Write or replace submission.json in one step."""
        commit_bytes(self.path / "submission.json", json.dumps(asdict(submission), indent=1).encode())

    def read(self) -> Submission:
        """Read submission.json.

        Raises:
            UserError: it is missing or not readable.
        """
        path = self.path / "submission.json"
        try:
            found = _SUBMISSION.validate_json(path.read_bytes())
            found.check(self.name)
            return found
        except (OSError, ValueError) as error:
            why = _first_violation(error) if isinstance(error, ValidationError) else error
            raise UserError(
                f"{path} is not readable ({why}). Take its jobs back by espalier cancel {self.study}, or scancel "
                f"--name {self.name}; then remove {self.path}."
            ) from None

    def write_array(self, number: int, array: JobArray, ancestors: dict[str, list[str]]) -> None:
        """Write what the jobs of an array read: its cells, and for each uncommitted ancestor what that needs."""
        elements = [[asdict(cell) for cell in element] for element in array.elements]
        content = {"elements": elements, "ancestors": ancestors}
        commit_bytes(self.path / f"array-{number:03}.json", json.dumps(content).encode())

    def read_element(self, number: int, index: int) -> tuple[list[Cell], dict[str, list[str]]]:
        """Return the cells of one element, and the ancestors of its array's cells (name -> names)."""
        content = json.loads((self.path / f"array-{number:03}.json").read_text())
        return [_cell_from(values) for values in content["elements"][index]], content["ancestors"]

    def keys(self) -> set[str]:
        """Return the keys of all cells in its array files, also when submission.json does not tell them."""
        found: set[str] = set()
        for path in self.path.glob("array-*.json"):
            with suppress(OSError, ValueError, TypeError, LookupError, RecursionError):  # a damaged one tells none
                elements = json.loads(path.read_text())["elements"]
                found |= {cell["id"]["key"] for element in elements for cell in element}
        return found

    def tell(self, number: int, index: int, event: dict[str, Any]) -> None:
        """Append one line to what an element told; a line is written whole or torn at the end of the file."""
        line = f"{json.dumps(event)}\n".encode()
        path = self._events(number, index)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        try:
            size = os.fstat(descriptor).st_size
            is_torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"  # its writer was killed
            os.write(descriptor, b"\n" * is_torn + line)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def told(self, number: int, index: int) -> list[dict[str, Any]]:
        """Return what an element told so far; lines that are torn, or no event, are left out."""
        path = self._events(number, index)
        lines = path.read_bytes().splitlines() if path.exists() else []
        return [event for event in map(event_in, lines) if event is not None]

    def _events(self, number: int, index: int) -> Path:
        return self.path / "events" / f"{number:03}-{index}.jsonl"


def submissions(study: Path) -> list[Submission]:
    """Return all submissions of a study that came to be queued, the oldest first."""
    return [each for each in all_submissions(study) if each.state != "withdrawn"]


def all_submissions(study: Path) -> list[Submission]:
    """Return all submissions of a study, the oldest first; a withdrawn one may have left jobs if Slurm was silent."""
    paths = (study / "slurm").glob("*/submission.json")
    found = [SubmissionFolder(study, path.parent.name).read() for path in paths]
    return sorted(found, key=lambda each: (each.time_utc, each.name))


def submission_names(study: Path) -> list[str]:
    """Return the names of all submissions, which are those of their folders, whatever became of their files."""
    return sorted(path.name for path in (study / "slurm").glob("*/") if _NAME.fullmatch(path.name))


def main_job(job: str) -> str:
    """Return the array that an element belongs to: 12 of 12_3."""
    return job.partition("_")[0]


def day_before(submitted: Sequence[Submission]) -> str:
    """Return the day before the oldest submission, from which accounting is asked: sacct thinks in local time."""
    first = min((datetime.fromisoformat(each.time_utc) for each in submitted), default=None)
    return f"{first - timedelta(days=1):%Y-%m-%d}" if first else "now"


def ancestors_of(array: JobArray, cells: dict[str, Cell]) -> dict[str, list[str]]:
    """Return name -> names of the inputs, for the array's cells and all that they wait for.

    Args:
        array: the array.
        cells: key -> cell, for every cell that is not committed.
    """
    found: dict[str, list[str]] = {}
    waiting: list[Cell] = list(array.cells)
    while waiting:
        cell = waiting.pop()
        inputs = [cells[each.key] for each in cell.inputs.values() if each.key in cells]
        if cell.id.name not in found:
            found[cell.id.name] = [each.id.name for each in inputs]
            waiting += inputs
    return found


def _cell_from(values: dict[str, Any]) -> Cell:
    inputs = {role: CellId(**each) for role, each in values["inputs"].items()}
    return Cell(**{**values, "id": CellId(**values["id"]), "inputs": inputs})


def elements_of(
    submitted: Sequence[Submission], alive: Collection[str] = ()
) -> dict[str, tuple[Submission, QueuedArray, int]]:
    """Return key of a cell -> where it was queued last, or last of those places whose jobs are alive, if any is.

    Args:
        submitted: the oldest first.
        alive: jobs in the queue that bear their names.
    """
    # Numbers of jobs begin again when a controller is set up anew: the last submission that has one is meant.
    name_of = {job: each.name for each in submitted for array in each.arrays for job in array.ids}
    places: dict[str, tuple[Submission, QueuedArray, int]] = {}
    living: dict[str, tuple[Submission, QueuedArray, int]] = {}
    for each in submitted:
        for key, array, index in each.holders():
            places[key] = (each, array, index)
            if array.ids[index] in alive and name_of[array.ids[index]] == each.name:
                living[key] = places[key]
    return places | living


def _first_violation(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}" if place else first["msg"]
