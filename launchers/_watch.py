"""Wait for what is queued, from the study's folder and one squeue at a time; any number of people may watch."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data.hdf5 import FileRefused
from launchers._events import Finished, Report, Said, Started
from launchers._schedule import Schedule
from launchers._slurm_cluster import Cluster, JobState, SlurmFailed
from launchers._submission import QueuedArray, Submission, SubmissionFolder, day_before, elements_of, submissions
from suite.attempt import Outcome
from suite.plan import Plan
from suite.store import CellId, Store

SHORTEST_S, LONGEST_S, SLOWER = 1.0, 30.0, 1.3  # between two looks: at once after news, then ever more seldom
SETTLE_S = 15.0  # a record on a shared file system may be seen that much later than its job has left the queue

REPAIRS = {
    "OUT_OF_MEMORY": "ran out of memory; raise memory_gib of the profile (now {memory_gib})",
    "TIMEOUT": "reached its time limit; raise time_min of the profile (now {time_min}) or pack fewer cells in a job",
    "DEADLINE": "could not end before its deadline",
    "NODE_FAIL": "lost its node",
    "BOOT_FAIL": "lost its node, which did not boot",
    "LAUNCH_FAILED": "could not be started on its node",
    "PREEMPTED": "was preempted and not queued again",
    "CANCELLED": "was cancelled",
    "COMPLETED": "ended without a record",
    "FAILED": "ended with exit code {code}",
}
NO_OUTPUT = "0:53"  # what accounting has where slurmd cannot open the files of a job's output


@dataclass
class Watch:
    """Follows one plan until every cell has come to its end."""

    plan: Plan
    folder: Path
    cluster: Cluster
    report: Report
    settle_s: float = SETTLE_S
    sleep: Callable[[float], None] = time.sleep
    _started: set[str] = field(default_factory=set)
    _gone_s: dict[str, float] = field(default_factory=dict)  # key -> when its job was first seen to be gone
    _read: dict[tuple[str, int, int], list[dict[str, Any]]] = field(default_factory=dict)  # files read in this look
    _trouble: str = ""

    def __post_init__(self) -> None:
        self.store = Store(self.folder)
        self.submitted = submissions(self.folder)
        self.places = elements_of(self.submitted)
        self.schedule = Schedule(self.plan, self.store)

    def wait(self) -> list[Outcome]:
        """Return one outcome per cell, in the plan's order, when all are known."""
        for outcome in list(self.schedule.outcomes.values()):
            self.report(Finished(outcome))
        pause_s = SHORTEST_S
        while not self.schedule.finished:
            news = self.look()
            pause_s = SHORTEST_S if news else min(LONGEST_S, SLOWER * pause_s)
            if not self.schedule.finished:
                self.sleep(pause_s)
        return [self.schedule.outcomes[cell.id.key] for cell in self.plan.cells]

    def look(self) -> bool:
        """Look once, by one squeue; return whether anything was new."""
        before = len(self.schedule.outcomes) + len(self._started)
        self._read.clear()
        standing = self._ask()
        self._take_committed()
        if standing is not None:
            self._explain([key for key in self._open() if self._take_told(key, standing)])
        return len(self.schedule.outcomes) + len(self._started) > before

    def _ask(self) -> dict[str, JobState] | None:
        """Return the jobs in the queue, or None while Slurm does not answer; what runs is not concerned."""
        try:
            standing = self.cluster.standing([each.name for each in self.submitted]) if self.submitted else {}
        except SlurmFailed as error:
            if not self._trouble:
                self._trouble = str(error)
                self.report(Said(f"Slurm does not answer ({self._trouble}); waiting, the jobs go on"))
            return None
        if self._trouble:
            self._trouble = ""
            self.report(Said("Slurm answers again"))
        return standing

    def _open(self) -> list[str]:
        return [key for key in self.schedule.cells if key not in self.schedule.outcomes]

    def _take_committed(self) -> None:
        """End the cells whose records have come; one listing of the folder, however many cells."""
        names = {path.stem for path in (self.folder / "cells").glob("*.h5")}
        for key in self._open():
            cell = self.schedule.cells[key]
            if cell.id.name not in names:
                continue
            try:
                self.store.is_committed(cell.id)
            except FileRefused as error:
                self._finish(Outcome(cell.id, "failed", str(error)))
                continue
            ended = self._last(key, "ended")
            self._finish(self._outcome(cell.id, ended) if ended else Outcome(cell.id, "done"))

    def _take_told(self, key: str, standing: dict[str, JobState]) -> bool:
        """Take what a cell's job told; return whether the cell has neither a job nor an end."""
        if key in self.schedule.outcomes:  # ended by the failure of another a moment ago
            return False
        if key not in self.places:
            return self._is_settled(key)
        _, array, index = self.places[key]
        state = standing.get(array.ids[index])
        if state and state.state == "PENDING":
            self._gone_s.pop(key, None)  # one that lost its node is seen to have ended before it waits again
            return False
        last = self._last(key)
        if last.get("event") == "started" and key not in self._started:
            self._started.add(key)
            self.report(Started(self.schedule.cells[key]))
        if last.get("event") == "ended" and last["status"] in ("failed", "upstream_failed"):
            self._finish(self._outcome(self.schedule.cells[key].id, last))
            return False
        if state and not state.ended:
            self._gone_s.pop(key, None)
            return False
        return self._is_settled(key)

    def _is_settled(self, key: str) -> bool:
        now_s = time.monotonic()
        return now_s - self._gone_s.setdefault(key, now_s) >= self.settle_s

    def _explain(self, lost: list[str]) -> None:
        """End the cells whose jobs are gone and left neither record nor reason; one sacct, however many."""
        lost = [key for key in lost if key not in self.schedule.outcomes]
        if not lost:
            return
        history: dict[str, JobState] = {}
        try:
            history = self.cluster.history([each.name for each in self.submitted], day_before(self.submitted))
        except SlurmFailed as error:
            self.report(Said(f"accounting does not answer ({error}); the reasons of lost jobs stay unknown"))
        for key in lost:
            # A failure found for one cell may have ended another of this list.
            if key not in self.schedule.outcomes and not self._needs_lost(key, lost):
                self._lose(key, history)

    def _needs_lost(self, key: str, lost: list[str]) -> bool:
        """Return whether a cell only waits for another lost one: that one's end will end it by name."""
        return any(each.key in lost for each in self.schedule.cells[key].inputs.values())

    def _lose(self, key: str, history: dict[str, JobState]) -> None:
        cell = self.schedule.cells[key]
        if key not in self.places:
            self._finish(Outcome(cell.id, "failed", "is in no queue; run the same command again", attempts=0))
            return
        submission, array, index = self.places[key]
        job = array.ids[index]
        message = f"its job {job} {explanation(history.get(job), array)}{last_error(self.folder, submission, job)}"
        with suppress(OSError):  # the log is how `espalier status` knows of it
            self.store.log_path(cell.id).write_text(f"{cell.title}\n\n{message}\n")
        self._finish(Outcome(cell.id, "failed", message, attempts=self._tries(key)))

    def _finish(self, outcome: Outcome) -> None:
        for ended in self.schedule.finish(outcome):
            self.report(Finished(ended))

    def _events(self, key: str) -> list[dict[str, Any]]:
        if key not in self.places:
            return []
        submission, array, index = self.places[key]
        place = (submission.name, array.number, index)
        if place not in self._read:
            self._read[place] = SubmissionFolder(self.folder, submission.name).told(array.number, index)
        return [event for event in self._read[place] if event.get("cell") == key]

    def _last(self, key: str, event: str = "") -> dict[str, Any]:
        return next((each for each in reversed(self._events(key)) if event in ("", each["event"])), {})

    def _tries(self, key: str) -> int:
        return sum(each["event"] == "started" for each in self._events(key))

    def _outcome(self, cell: CellId, ended: dict[str, Any]) -> Outcome:
        found = Outcome(cell, ended["status"], ended["message"], ended["wall_s"], ended["host"])
        return Outcome(**{**vars(found), "attempts": max(ended["attempts"], self._tries(cell.key))})


def explanation(state: JobState | None, array: QueuedArray) -> str:
    """Return why a job left no record, in words that name the repair."""
    if state is None:
        return "is gone and accounting does not know why; run the same command again"
    if (state.state, state.reason) == ("FAILED", NO_OUTPUT):
        place = state.node or "its node"
        return f"could not begin: {place} does not see the study's folder; give --out DIR that all nodes see"
    facts = {"memory_gib": "the site's default", **array.resources, "code": state.reason.partition(":")[0] or "unknown"}
    where = f" on {state.node}" if state.node and "None" not in state.node else ""
    return REPAIRS.get(state.state, f"ended as {state.state}").format(**facts) + where


def last_error(study: Path, submission: Submission, job: str) -> str:
    """Return ": " and the last line that a job wrote to its standard error, or nothing."""
    path = SubmissionFolder(study, submission.name).jobs / f"{job}_0_log.err"
    with suppress(OSError):
        lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f": {lines[-1][:200]}" if lines else ""
    return ""
