"""How a study stands that was queued: its folder, joined with one squeue and at most one sacct.

Nothing is written, so anybody who can read the folder may ask, from any machine, as often as he likes.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from launchers._again import in_words
from launchers._arrays import wave_of_each
from launchers._claims import is_of
from launchers._job_states import JobState
from launchers._loss import loss
from launchers._slurm_call import SlurmFailed
from launchers._slurm_cluster import Cluster
from launchers._submission import Submission, day_before, elements_of, submissions
from launchers._told import Place, Told
from suite.claim import Owner
from suite.plan import Cell, Plan
from suite.progress import Standing, standings
from suite.store import Store

INTERRUPTED = "was interrupted while it was being queued, or is being queued now; held jobs of it never run"


@dataclass(frozen=True)
class Overview:
    """How all cells stand.

    Attributes:
        cells: in the plan's order.
        waves: whether the study was ever queued, so that cells have waves.
        notes: what a person should know beside, one line each: who does not answer, what was left half done.
    """

    cells: list[Standing]
    waves: bool = False
    notes: tuple[str, ...] = ()


def overview(plan: Plan, folder: Path, cluster: Cluster) -> Overview:
    """Return how every cell of a study stands.

    Args:
        plan: the study's.
        folder: the study's.
        cluster: asked only when the study was ever queued.

    Raises:
        FileRefused: a committed cell is damaged.
        UserError: a submission's file is not readable.

    Cost: one squeue, one sacct if jobs were lost without a word, and one small file for each element that began.
    """
    submitted = submissions(folder)
    if not submitted:
        return Overview(standings(plan, Store(folder)))
    notes = [f"{each.name} {INTERRUPTED}: espalier cancel {folder}" for each in submitted if each.state == "queuing"]
    queue: dict[str, JobState] | None = None
    try:
        queue = cluster.standing([each.name for each in submitted])
    except SlurmFailed as error:
        notes.append(f"Slurm does not answer ({error}); this is what the folder knows")
    # The folder after the queue: a job that has just left it had committed what it will ever commit.
    alive = {job for job, state in (queue or {}).items() if not state.ended}
    judge = _Judge(Told(folder), elements_of(submitted, alive), queue, {each.name for each in submitted})
    waves = wave_of_each(plan.cells)
    pairs = zip(plan.cells, standings(plan, Store(folder), judge.is_over), strict=True)
    found = [replace(judge.judged(cell, standing), wave=waves[cell.id.key]) for cell, standing in pairs]
    found = _explained(found, plan, judge, submitted, cluster, notes)
    return Overview(
        [judge.with_retry(each, cell) for each, cell in zip(found, plan.cells, strict=True)], True, tuple(notes)
    )


@dataclass
class _Judge:
    """Says how each cell stands, from the job that holds it and what that job told."""

    told: Told
    places: Mapping[str, Place]
    queue: Mapping[str, JobState] | None
    names: Collection[str]  # of all submissions

    def judged(self, cell: Cell, standing: Standing) -> Standing:
        """Return the standing, with what is known of the cell's job."""
        key = cell.id.key
        if standing.state == "done" or key not in self.places:
            return standing
        submission, array, index = self.places[key]
        job = array.ids[index]
        state = self.queue.get(job) if self.queue is not None else None
        if state and state.state == "PENDING":
            waits = state.reason == "Dependency"
            return replace(standing, state="waiting" if waits else "queued", message=state.reason, job=job)
        events = self.told.of_cell(self.places, key)
        told = _with_told(replace(standing, job=job), events)
        last = events[-1] if events else {}
        if told.state in ("running", "failed"):
            return told
        if last.get("event") == "ended" and last.get("status") in ("failed", "upstream_failed"):
            return replace(told, state="failed" if last["status"] == "failed" else "missing", message=last["message"])
        if self.queue is None:
            return replace(told, state="unknown", message="began, by what its job told" if last else "was queued")
        if state and not state.ended:
            return self._running(told, state, last)
        if submission.state == "cancelled":
            return replace(told, state="missing", message="cancelled")
        return replace(told, state="lost")

    def is_over(self, cell: Cell, owner: Owner) -> bool:
        """Return whether a claim was made by a job of this study that was killed: the cell has no job any more."""
        if self.queue is None or not is_of(owner, self.names):
            return False
        if cell.id.key not in self.places:
            return True
        _, array, index = self.places[cell.id.key]
        state = self.queue.get(array.ids[index])
        return state is None or state.ended

    def with_retry(self, standing: Standing, cell: Cell) -> Standing:
        """Return the standing of a cell that a driver has queued again by itself, with why and what was raised."""
        told = self.places[cell.id.key][0].again.get(cell.id.key) if cell.id.key in self.places else None
        if not told or standing.state == "missing":
            return standing
        return replace(standing, message="; ".join(filter(None, (standing.message, in_words(told)))))

    def _running(self, told: Standing, state: JobState, last: Mapping[str, Any]) -> Standing:
        """Return a cell whose job is alive: at work on it, or on another one before it."""
        node = told.node or state.node
        if last.get("event") == "started":
            return replace(told, state="running", node=node, message="" if state.state == "RUNNING" else state.state)
        return replace(told, state="queued", node=node, message=f"its job is {state.state}")


def _explained(
    found: list[Standing],
    plan: Plan,
    judge: _Judge,
    submitted: Sequence[Submission],
    cluster: Cluster,
    notes: list[str],
) -> list[Standing]:
    """Return the standings, lost cells with the reason that accounting gives; one sacct, however many."""
    if not any(each.state == "lost" for each in found):
        return found
    history: dict[str, JobState] = {}
    try:
        history = cluster.history([each.name for each in submitted], day_before(submitted))
    except SlurmFailed as error:
        notes.append(f"accounting does not answer ({error}); why jobs were lost stays unknown")
    explained = []
    for cell, standing in zip(plan.cells, found, strict=True):
        if standing.state == "lost":
            submission, array, _ = judge.places[cell.id.key]
            behind = judge.told.is_behind(judge.places[cell.id.key], cell.id.key)
            state = history.get(standing.job)
            why = loss(judge.told.folder, submission, array, standing.job, state, behind=behind)
            standing = replace(standing, message=why.message)
        explained.append(standing)
    return explained


def _with_told(standing: Standing, events: Sequence[Mapping[str, Any]]) -> Standing:
    """Return the standing with the tries that a cell's job told, and the node of the last one."""
    tries = sum(each.get("event") == "started" for each in events)
    node = next((each["slurmd_nodename"] for each in reversed(events) if "slurmd_nodename" in each), "")
    return replace(standing, attempts=tries, node=node or standing.node)
