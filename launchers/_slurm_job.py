"""What a job does: run the cells of its element one after the other, and tell the study's folder how each ended.

submitit pickles the name of `run_element` and plain values; everything else is read from the study's folder.
"""

import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from launchers._job_probes import JobProbes
from launchers._submission import SubmissionFolder
from launchers._warning import heeded, least_s, requeue
from launchers.ray_cluster import RayFailed
from suite.attempt import Outcome, attempt
from suite.errors import UserError
from suite.plan import Cell
from suite.store import Store
from suite.training.checkpoint import Interrupted, Notice

LOOKS, LOOK_S = 3, 2.0  # an input just committed on another node may take a moment to be seen
MAX_REQUEUES = 50  # of an element by itself; preemptions and lost nodes are not counted
FAREWELL_S = 600.0  # at most, for Slurm to end a job that it did not queue again


class CellsFailed(RuntimeError):
    """Ends the job with an exit code other than 0. The study's folder says which cells, and why."""


def run_element(study: str, name: str, number: int, index: int, scratch: str | None, time_min: int) -> None:
    """Run one element of an array.

    Args:
        study: the study's folder.
        name: of the submission.
        number: of the array.
        index: of the element.
        scratch: folder on this node for temporary files.
        time_min: the job's time limit.

    Raises:
        CellsFailed: some of its cells have no record now.
        SystemExit: Slurm has warned the job, and has queued it again.
        UserError: the folder takes no more files.
    """
    folder = SubmissionFolder(Path(study), name)
    element = _Element(folder, number, index)
    cells, ancestors = folder.read_element(number, index)
    failed_before = element.failed_before()
    say = partial(print, flush=True)
    failed = 0
    try:
        with (
            _temporary_files_in(scratch),
            JobProbes(folder.path / "ray", say, scratch) as probes,
            heeded(element.notice, element.num_requeues() < MAX_REQUEUES, element.has_progress, least_s(time_min)),
        ):
            for cell in cells:
                is_lost = cell.id.key in failed_before and not element.store.path(cell.id).exists()
                failed += is_lost or element.run(cell, ancestors, probes).status not in ("done", "cached")
    except Interrupted as left:
        element.leave(str(left))
    if failed:
        raise CellsFailed(f"{failed} of {len(cells)} cells failed; espalier status {study} says why")


@dataclass
class _Element:
    """One element at work.

    Attributes:
        notice: by which Slurm's signals reach a training.
        cell: the one that was begun last.
        num_done: cells that this job has committed.
        before: what was saved of the cell when it was begun.
    """

    folder: SubmissionFolder
    number: int
    index: int
    notice: Notice = field(default_factory=Notice)
    cell: Cell | None = None
    num_done: int = 0
    before: int = 0

    def run(self, cell: Cell, ancestors: dict[str, list[str]], probes: JobProbes) -> Outcome:
        """Run one cell and tell when it began and how it ended."""
        if self.notice.stop and self.num_done:
            raise Interrupted("the cells before it")
        self.cell, self.before = cell, _stamp(self.store.checkpoint_path(cell.id))
        self.tell({"event": "started", "cell": cell.id.key})
        try:
            if lost := _lost_input(cell, self.store, ancestors):
                outcome = Outcome(cell.id, "upstream_failed", f"needs {lost}", host=platform.node(), attempts=0)
            elif probes.spread(cell) and not self.store.path(cell.id).exists():
                outcome = self._run_spread(cell, probes)
            else:
                outcome = attempt(cell, self.folder.study, notice=self.notice)
        except UserError as error:
            with suppress(UserError):
                self._tell_end(Outcome(cell.id, "failed", str(error), host=platform.node()))
            raise
        self._tell_end(outcome)
        self.num_done += outcome.status == "done"
        return outcome

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

    def has_progress(self) -> bool:
        """Return whether the same job, begun anew, would find more done than this one did."""
        cell = self.cell
        return bool(self.num_done) or (
            cell is not None and _stamp(self.store.checkpoint_path(cell.id)) not in (0, self.before)
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

        Raises:
            SystemExit: always.
        """
        assert self.cell is not None
        saved = f"saved {what}"
        self.tell({"event": "left", "cell": self.cell.id.key, "message": saved})
        refused = requeue()
        if refused:  # a preempted job comes back by itself, if it does not end by itself first
            message = f"{saved}, but Slurm did not queue the job again: {refused}; espalier retry goes on from there"
            self.tell({"event": "stayed", "cell": self.cell.id.key, "message": message})
            print(message, file=sys.stderr, flush=True)
            time.sleep(FAREWELL_S)
        sys.exit(f"{saved}; Slurm has queued the job again" if not refused else 1)

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

    def _tell_end(self, outcome: Outcome) -> None:
        values = {key: value for key, value in asdict(outcome).items() if key != "cell"}
        self.tell({"event": "ended", "cell": outcome.cell.key, **values})


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


@contextmanager
def _temporary_files_in(scratch: str | None) -> Iterator[None]:
    """Let temporary files lie in a private folder on the node, removed at the end."""
    if scratch is None:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="espalier-", dir=scratch) as folder:
        before = os.environ.get("TMPDIR")
        os.environ["TMPDIR"] = tempfile.tempdir = folder
        try:
            yield
        finally:
            tempfile.tempdir = None
            os.environ.pop("TMPDIR")
            if before is not None:
                os.environ["TMPDIR"] = before
