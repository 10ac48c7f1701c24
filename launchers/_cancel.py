"""Take the jobs of a study out of the queue, all of them, and wait until none is left."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from launchers._claims import release_claims
from launchers._slurm_call import SlurmFailed
from launchers._slurm_cluster import Cluster
from launchers._submission import Submission, SubmissionFolder, main_job, submission_names
from suite.errors import UserError
from suite.plan import Cell, Plan
from suite.store import Store

SHORTEST_S, LONGEST_S, SLOWER = 0.5, 10.0, 1.3  # between two looks at jobs that are ending
MAX_REFUSALS = 3  # one after the other; scancel also complains of a job that ended a moment ago
ASK_AGAIN = 10  # looks, after which scancel is asked once more for jobs that are still there


@dataclass(frozen=True)
class Cancelled:
    """What was taken back.

    Attributes:
        jobs: elements of arrays.
        cells: those of them that have no record.
        notes: what could not be read or written down, one line for each submission.
    """

    jobs: tuple[str, ...]
    cells: tuple[Cell, ...]
    notes: tuple[str, ...] = ()


def cancel(
    plan: Plan,
    folder: Path,
    cluster: Cluster,
    told: Callable[[int], None] = lambda _: None,
    sleep: Callable[[float], None] = time.sleep,
) -> Cancelled:
    """Cancel every job of a study's submissions, and return when none is left.

    Jobs are found by their submissions' names, which are random and those of their folders, never by what is in a file:
    it may be damaged, and numbers begin again when a controller is set up anew. A submission that is being queued is
    told first, so that it queues nothing more; where the folder takes no more files, jobs are taken back all the same.

    Args:
        plan: the study's.
        folder: the study's.
        cluster: where it was submitted.
        told: called with the number of jobs that are left, at every look.
        sleep: waits between looks.

    Raises:
        UserError: Slurm does not answer, or does not let this user cancel.

    Cost: one squeue per look, from half a second to ten between them, and one scancel as a rule.
    """
    notes: dict[str, str] = {}
    submitted = {name: _read(folder, name, notes) for name in submission_names(folder)}
    for each in submitted.values():
        if each is not None and each.state == "queuing":
            _write_cancelled(folder, each, notes)
    try:
        jobs = _empty_queue(list(submitted), cluster, told, sleep) if submitted else set()
    except SlurmFailed as error:
        raise UserError(f"{error}. Jobs may be left in the queue; run the same command again.") from None
    cells = _taken_back(plan, folder, submitted, jobs, notes)
    return Cancelled(tuple(sorted(jobs)), cells, tuple(notes.values()))


def _empty_queue(
    names: Sequence[str], cluster: Cluster, told: Callable[[int], None], sleep: Callable[[float], None]
) -> set[str]:
    """Return the jobs that were cancelled, once all are gone.

    A warned job queues itself again, perhaps after scancel has heard of it: one that waits, or is still there after
    some looks, is cancelled once more.
    """
    seen: set[str] = set()
    asked: set[str] = set()
    looks, refusals, pause_s = 0, 0, SHORTEST_S
    while alive := {job: state.state for job, state in cluster.standing(names).items() if not state.ended}:
        looks += 1
        if looks % ASK_AGAIN == 0:
            asked.clear()
        told(len(alive))
        seen |= set(alive)
        wanted = {job for job, state in alive.items() if state == "PENDING" or job not in asked}
        try:
            if wanted:
                cluster.withdraw(sorted({main_job(job) for job in wanted}, key=int))
            asked |= wanted
            refusals = 0
        except SlurmFailed:
            refusals += 1
            if refusals == MAX_REFUSALS:
                raise
        sleep(pause_s)
        pause_s = min(LONGEST_S, SLOWER * pause_s)
    return seen


def _taken_back(
    plan: Plan, folder: Path, submitted: Mapping[str, Submission | None], jobs: set[str], notes: dict[str, str]
) -> tuple[Cell, ...]:
    """Mark the submissions that lost jobs; return the cells that those jobs held and that have no record."""
    keys: set[str] = set()
    told = {job for each in submitted.values() if each for array in each.arrays for job in array.ids}
    for name, each in submitted.items():
        held = {key for key, array, index in each.holders() if array.ids[index] in jobs} if each else set()
        if jobs - told and not (each and each.arrays):  # no file tells which job holds what
            held = SubmissionFolder(folder, name).keys()
        if each and held and each.state != "withdrawn":
            _write_cancelled(folder, each, notes)
        keys |= held
    store = Store(folder)
    release_claims(plan.cells, store, set(submitted))
    return tuple(cell for cell in plan.cells if cell.id.key in keys and not store.path(cell.id).exists())


def _read(folder: Path, name: str, notes: dict[str, str]) -> Submission | None:
    """Return a submission, or None where nothing tells of it but its name."""
    files = SubmissionFolder(folder, name)
    try:
        return files.read()
    except UserError:
        if (files.path / "submission.json").exists():
            notes[name] = f"{files.path / 'submission.json'} is not readable; its jobs are gone, remove {files.path}"
        return None


def _write_cancelled(folder: Path, submission: Submission, notes: dict[str, str]) -> None:
    """Mark a submission; a full disk, or the folder of a colleague, is only noted: Slurm says whose jobs these are."""
    files = SubmissionFolder(folder, submission.name)
    try:
        files.write(replace(submission, state="cancelled"))
        notes.pop(submission.name, None)
    except OSError as error:
        goes_on = "an espalier submit that still queues it does not hear of that"
        notes[submission.name] = (
            f"{files.path} takes no more files ({error.strerror or error}), so it is not written down that this "
            f"submission was cancelled: {goes_on if submission.state == 'queuing' else 'status calls its cells lost'}"
        )
