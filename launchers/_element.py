"""One element of an array at work: its cells, what it tells of them, and how it leaves when Slurm warns it."""

import os
import platform
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from launchers._job_probes import JobProbes
from launchers._submission import SubmissionFolder
from launchers._warning import requeue
from launchers.ray_cluster import RayFailed
from suite.attempt import Outcome, attempt
from suite.errors import UserError
from suite.plan import Cell
from suite.store import Store
from suite.training.checkpoint import Interrupted, Notice

LOOKS, LOOK_S = 3, 2.0  # an input just committed on another node may take a moment to be seen
WELL = ("done", "cached")  # the ends of a cell that has a record
FAREWELL_S = 600.0  # at most, for Slurm to end a job that it did not queue again


@dataclass
class Element:
    """One element at work, in this process or in some that it has started.

    Attributes:
        notice: by which Slurm's signals reach a training.
        num_done: cells that this job has committed.
        at_work: key of a cell that is being computed -> the cell, and what was saved of it when it was begun.
        saved: key of a cell that was left on the way -> what was saved of it.
        last: key of the cell that was begun last.
    """

    folder: SubmissionFolder
    number: int
    index: int
    notice: Notice = field(default_factory=Notice)
    num_done: int = 0
    at_work: dict[str, tuple[Cell, int]] = field(default_factory=dict)
    saved: dict[str, str] = field(default_factory=dict)
    last: str = ""

    def run(self, cell: Cell, ancestors: dict[str, list[str]], probes: JobProbes | None = None) -> Outcome:
        """Run one cell and tell when it began and how it ended."""
        if self.notice.stop and self.num_done:
            raise Interrupted("the cells before it")
        self.begin(cell)
        self.tell({"event": "started", "cell": cell.id.key})
        try:
            if lost := _lost_input(cell, self.store, ancestors):
                outcome = Outcome(cell.id, "upstream_failed", f"needs {lost}", host=platform.node(), attempts=0)
            elif probes is not None and probes.spread(cell) and not self.store.path(cell.id).exists():
                outcome = self._run_spread(cell, probes)
            else:
                outcome = attempt(cell, self.folder.study, notice=self.notice)
        except UserError as error:
            with suppress(UserError):
                self.tell_end(Outcome(cell.id, "failed", str(error), host=platform.node()))
            raise
        self.tell_end(outcome)
        self.end(cell, outcome.status)
        return outcome

    def begin(self, cell: Cell) -> None:
        """Take note of a cell that is being computed from now on."""
        self.at_work[cell.id.key] = cell, _stamp(self.store.checkpoint_path(cell.id))
        self.last = cell.id.key

    def end(self, cell: Cell, status: str) -> None:
        """Take note of a cell's end."""
        del self.at_work[cell.id.key]
        self.num_done += status == "done"

    def interrupt(self, cell: Cell, what: str) -> None:
        """Take note of a cell that was left on the way, and of what was saved of it."""
        del self.at_work[cell.id.key]
        self.saved[cell.id.key] = what

    def put_back(self, cell: Cell) -> None:
        """Take note of a cell that is at work no more, and has no end yet."""
        del self.at_work[cell.id.key]

    def tell(self, event: dict[str, Any]) -> None:
        """Tell the study's folder something, with when and where.

        Raises:
            UserError: the folder takes no more files.
        """
        try:
            self.folder.tell(self.number, self.index, {**event, **_place()})
        except OSError as error:
            raise UserError(
                f"{self.folder.path} cannot be written: {error.strerror or error}. Free space; what is committed "
                "stays, and espalier retry goes on from there."
            ) from error

    def tell_end(self, outcome: Outcome) -> None:
        """Tell how a cell ended."""
        values = {key: value for key, value in asdict(outcome).items() if key != "cell"}
        self.tell({"event": "ended", "cell": outcome.cell.key, **values})

    def has_progress(self) -> bool:
        """Return whether the same job, begun anew, would find more done than this one did."""
        return bool(self.num_done or self.saved) or any(
            _stamp(self.store.checkpoint_path(cell.id)) not in (0, before) for cell, before in self.at_work.values()
        )

    def num_requeues(self) -> int:
        """Return how often the element has queued itself again."""
        return sum(event["event"] == "left" for event in self.folder.told(self.number, self.index))

    def failed_before(self) -> set[str]:
        """Return the keys of cells that failed before the element queued itself again: they would fail once more.

        When Slurm or somebody has it run again, after a lost node or a full disk, they are tried again.
        """
        told = self.folder.told(self.number, self.index)
        if not told or told[-1]["event"] not in ("left", "stayed"):
            return set()
        last = {event["cell"]: event for event in told if "cell" in event}
        return {key for key, event in last.items() if event["event"] == "ended" and event["status"] == "failed"}

    def leave(self, what: str) -> None:
        """Queue the job again, and end it; where Slurm does not take it, wait until Slurm ends it.

        Of several cells that were left, each has an event of its own, but the job leaves once.

        Args:
            what: was saved.

        Raises:
            SystemExit: always.
        """
        *others, (last, of_last) = ((dict.fromkeys(self.at_work, what) | self.saved) or {self.last: what}).items()
        for key, each in others:
            self.tell({"event": "paused", "cell": key, "message": f"saved {each}"})
        self.tell({"event": "left", "cell": last, "message": f"saved {of_last}"})
        refused = requeue()
        if refused:  # a preempted job comes back by itself, if it does not end by itself first
            reason = f"but Slurm did not queue the job again: {refused}; espalier retry goes on from there"
            self.tell({"event": "stayed", "cell": last, "message": f"saved {of_last}, {reason}"})
            print(f"saved {what}, {reason}", file=sys.stderr, flush=True)
            time.sleep(FAREWELL_S)
        sys.exit(f"saved {what}; Slurm has queued the job again" if not refused else 1)

    @property
    def store(self) -> Store:
        """Return where cells are committed."""
        return Store(self.folder.study)

    def _run_spread(self, cell: Cell, probes: JobProbes) -> Outcome:
        """Run a cell whose probes go to workers on all nodes of this job, and tell where they were."""
        try:
            with probes.map_for(cell) as probe_map:
                outcome = attempt(cell, self.folder.study, probe_map=probe_map, notice=self.notice)
                workers = {"event": "workers", "of": cell.id.key, "hosts": probe_map.hosts}
                with suppress(OSError):  # the record is committed; what follows will say it
                    self.folder.tell(self.number, self.index, workers)
                return outcome
        except RayFailed as error:
            with suppress(OSError):  # the log is how `espalier status` knows of it
                self.store.log_path(cell.id).write_text(f"{cell.title}\n\n{error}\n")
            return Outcome(cell.id, "failed", str(error), host=platform.node())


def _stamp(folder: Path) -> int:
    """Return when a state below a folder was committed last, by its file server's clock, or 0."""
    found = 0
    for path in folder.rglob("[!.]*.h5"):  # not what was written of one that was never finished, nor a lock
        with suppress(OSError):  # removed meanwhile
            found = max(found, path.stat().st_mtime_ns)
    return found


def _lost_input(cell: Cell, store: Store, ancestors: dict[str, list[str]]) -> str:
    """Return the name of the cell without whose record this one cannot run, or nothing."""
    for look in range(LOOKS):
        missing = [each for each in cell.inputs.values() if not store.path(each).exists()]
        if not missing:
            return ""
        if store.is_committed(cell.id):  # its own record is there: its inputs are no longer needed
            return ""
        if any(store.log_path(each).exists() for each in missing):
            break
        if look < LOOKS - 1:
            time.sleep(LOOK_S)
            os.utime(store.folder / "cells")  # makes NFS forget what it thought was in the folder
    name = missing[0].name
    while lost := [each for each in ancestors.get(name, []) if not (store.folder / "cells" / f"{each}.h5").exists()]:
        name = lost[0]
    return name


def _place() -> dict[str, str]:
    """Return when and where: the job, how often it was requeued, the node."""
    names = ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT", "SLURMD_NODENAME")
    return {"time_utc": datetime.now(UTC).isoformat(timespec="seconds")} | {
        name.lower(): os.environ[name] for name in names if name in os.environ
    }
