"""Wait for what is queued, from the study's folder and one squeue at a time; any number of people may watch."""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data.hdf5 import FileRefused
from launchers._again import INPUT, Again, Retries, announced, number_of, tell_again, that_can_begin
from launchers._events import Finished, Report, Said, Started
from launchers._holders import Holders
from launchers._inquiry import Inquiry
from launchers._job_states import JobState
from launchers._loss import Loss, loss
from launchers._profile import Resources
from launchers._refusals import Silent
from launchers._schedule import Schedule
from launchers._slurm_cluster import Cluster
from launchers._stuck import Stuck
from launchers._told import Place, Told
from suite.attempt import Outcome
from suite.errors import UserError
from suite.plan import Plan
from suite.store import CellId, Store

SHORTEST_S, LONGEST_S, SLOWER = 1.0, 30.0, 1.3  # between two looks: at once after news, then ever more seldom
SETTLE_S = 15.0  # a record on a shared file system may be seen that much later than its job has left the queue
LAG_S = 60.0  # accounting hears of the end of a job later than squeue does; after a silence of its own, much later
NOT_ENDED = ("COMPLETING", "CONFIGURING", "PENDING", "REQUEUED", "RUNNING", "SUSPENDED")  # so accounting lags


@dataclass
class Watch:
    """Follows one plan until every cell has come to its end."""

    plan: Plan
    folder: Path
    cluster: Cluster
    report: Report
    settle_s: float = SETTLE_S
    sleep: Callable[[float], None] = time.sleep
    retries: Retries | None = None  # queues lost cells again; None: a loss is the end of a cell
    lag_s: float = LAG_S
    _started: set[str] = field(default_factory=set)
    _gone_s: dict[str, float] = field(default_factory=dict)  # key -> when its job was first seen to be gone
    _unknown_s: dict[str, float] = field(default_factory=dict)  # key -> when accounting first did not know why
    _complete: set[str] = field(default_factory=set)  # cells that were queued again when all inputs were there

    def __post_init__(self) -> None:
        self.store = Store(self.folder)
        self.schedule = Schedule(self.plan, self.store)
        self.inquiry = Inquiry(self.cluster, self.report)
        self.told = Told(self.folder)
        self.holders = Holders(self.folder)
        self.stuck = Stuck(self.folder, self.report, self.settle_s)

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
        self.told.forget()
        standing = self.inquiry.standing(self.holders.submitted)
        if standing is not None:
            self.holders.find({job for job, state in standing.items() if not state.ended})
        self._take_committed()
        if standing is not None:
            self._explain([key for key in self._open() if self._take_told(key, standing)])
            self.stuck.look({job: standing.get(job) for job in map(self._job, self._open())})
        return len(self.schedule.outcomes) + len(self._started) > before

    @property
    def places(self) -> dict[str, Place]:
        """Return key of a cell -> where it is queued."""
        return self.holders.places

    def _job(self, key: str) -> str:
        """Return the job that holds a cell, or nothing."""
        if key not in self.places:
            return ""
        _, array, index = self.places[key]
        return array.ids[index]

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
        if last.get("event") == "ended" and self._is_final(key, last):
            self._finish(self._outcome(self.schedule.cells[key].id, last))
            return False
        if state and not state.ended:
            self._gone_s.pop(key, None)
            return False
        return self._is_settled(key)

    def _is_final(self, key: str, ended: Mapping[str, Any]) -> bool:
        """Return whether a cell has come to its end by what its job told."""
        if ended["status"] == "failed":
            return True
        # With a driver that queues lost cells again, an input that was not there may still come.
        return ended["status"] == "upstream_failed" and (self.retries is None or key in self._complete)

    def _is_settled(self, key: str) -> bool:
        now_s = time.monotonic()
        return now_s - self._gone_s.setdefault(key, now_s) >= self.settle_s

    def _explain(self, lost: list[str]) -> None:
        """End, or queue again, cells whose jobs are gone without record or reason; one sacct, however many."""
        lost = self._still_lost(lost)
        if not lost:
            return
        history = self.inquiry.history(self.holders.submitted)
        if history is None:
            return
        again: dict[str, Again] = {}
        for key in lost:
            # A failure found for one cell may have ended another of this list.
            if key in self.schedule.outcomes or (self.retries is None and self._needs_lost(key, lost)):
                continue
            if self.retries and self._last(key).get("status") == "upstream_failed":
                again[key] = self._for_its_inputs(key)
            elif found := self._loss(key, history):
                decided = self._decided(key, found)
                if isinstance(decided, Again):
                    again[key] = decided
                else:
                    self._lose(key, f"{found.message}{decided}")
        if self.retries and again:
            self._queue_again(self.retries, again)

    def _still_lost(self, lost: list[str]) -> list[str]:
        """Return those that have no end, and that nobody has queued again meanwhile."""
        lost = [key for key in lost if key not in self.schedule.outcomes]
        if not lost:
            return []
        before = {key: self.places[key][0].name for key in lost if key in self.places}
        self.holders.reread()
        return [key for key in lost if key not in self.places or self.places[key][0].name == before.get(key)]

    def _needs_lost(self, key: str, lost: list[str]) -> bool:
        """Return whether a cell only waits for another lost one: that one's end will end it by name."""
        return any(each.key in lost for each in self.schedule.cells[key].inputs.values())

    def _loss(self, key: str, history: Mapping[str, JobState]) -> Loss | None:
        """Return why a cell was lost, or None where accounting may still hear of it."""
        if key not in self.places:
            return Loss("", "is in no queue; run the same command again")
        submission, array, index = self.places[key]
        job, behind = array.ids[index], self.told.is_behind(self.places[key], key)
        state = history.get(job)
        if state is None or state.state in NOT_ENDED:
            now_s = time.monotonic()
            if self.inquiry.has_accounting and now_s - self._unknown_s.setdefault(key, now_s) < self.lag_s:
                return None
            state = None
        return loss(self.folder, submission, array, job, state, behind=behind)

    def _for_its_inputs(self, key: str) -> Again:
        submission, array, _ = self.places[key]
        return Again(INPUT, number_of(submission, key), Resources(**array.resources))

    def _decided(self, key: str, found: Loss) -> Again | str:
        if self.retries is None or key not in self.places or self.places[key][0].state == "cancelled":
            return ""
        submission, array, index = place = self.places[key]
        number = number_of(submission, key)
        if self.told.is_behind(place, key):
            return self.retries.behind(found.cause, array, index, number)
        return self.retries.decide(found.cause, array, number, alone=self.told.is_begun(place, key))

    def _queue_again(self, retries: Retries, again: dict[str, Again]) -> None:
        """Queue cells again whose inputs are there, in the queue, or queued again as well; the others wait."""
        held = {key for key, place in self.places.items() if self.holders.is_alive(place)}
        again = {key: each for key, each in again.items() if key not in self.schedule.outcomes}
        ready = that_can_begin(again, self.plan.cells, set(self.schedule.outcomes), held)
        if not ready:
            return
        try:
            retries.queue(ready)
        except Silent as error:
            self.inquiry.say_once("sbatch", f"lost cells cannot be queued again yet ({error}); waiting, the jobs go on")
        except UserError as error:
            for key in ready:
                if key not in self.schedule.outcomes:
                    self._lose(key, f"its job was lost and cannot be queued again: {error}")
        else:
            self.inquiry.answers("sbatch")
            tell_again(self.folder, self.places, ready)
            for key in ready:
                inputs = {each.key for each in self.schedule.cells[key].inputs.values()}
                self._complete |= {key} if inputs <= set(self.schedule.outcomes) else set()
                self._gone_s.pop(key, None)
                self._unknown_s.pop(key, None)
            self._started -= set(ready)
            self.holders.reread()
            for line in announced(ready, self.schedule.cells):
                self.report(Said(line))

    def _lose(self, key: str, message: str) -> None:
        cell = self.schedule.cells[key]
        if key not in self.places:
            self._finish(Outcome(cell.id, "failed", message, attempts=0))
            return
        with suppress(OSError):  # the log is how `espalier status` knows of it
            self.store.log_path(cell.id).write_text(f"{cell.title}\n\n{message}\n")
        self._finish(Outcome(cell.id, "failed", message, attempts=self._tries(key)))

    def _finish(self, outcome: Outcome) -> None:
        for ended in self.schedule.finish(outcome):
            self.report(Finished(ended))

    def _last(self, key: str, event: str = "") -> dict[str, Any]:
        return next(
            (each for each in reversed(self.told.of_cell(self.places, key)) if event in ("", each["event"])), {}
        )

    def _tries(self, key: str) -> int:
        """Return how often a cell was begun, by the jobs of its last submission and by those it was lost with."""
        before = number_of(self.places[key][0], key) if key in self.places else 0
        return before + len([each for each in self.told.of_cell(self.places, key) if each["event"] == "started"])

    def _outcome(self, cell: CellId, ended: dict[str, Any]) -> Outcome:
        found = Outcome(cell, ended["status"], ended["message"], ended["wall_s"], ended["host"])
        return Outcome(**{**vars(found), "attempts": max(ended["attempts"], self._tries(cell.key))})
