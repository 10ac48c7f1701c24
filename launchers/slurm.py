"""slurm: cells as elements of job arrays, one array for each wave of the plan and each kind of resources.

What is queued goes on without this process. Committed cells are the truth; squeue, sacct and what jobs told explain
what is missing. See docs/slurm.md.
"""

import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from data.hdf5 import exclusive
from launchers._again import Again, Retries
from launchers._arrays import JobArray, job_arrays, needed_jobs
from launchers._claims import release_claims
from launchers._completion import completed, submitter
from launchers._events import Report
from launchers._partition_fit import check_partitions
from launchers._profile import Profile
from launchers._refusals import Refused, Silent
from launchers._retry import with_inputs
from launchers._room import check_room
from launchers._slurm_call import SlurmFailed
from launchers._slurm_cluster import Cluster, Order, SlurmCluster, require_slurm
from launchers._slurm_facts import partition_called
from launchers._submission import (
    QueuedArray,
    Submission,
    SubmissionFolder,
    ancestors_of,
    elements_of,
    main_job,
)
from launchers._watch import Watch
from suite.attempt import Outcome
from suite.errors import UserError
from suite.plan import Cell, Plan
from suite.store import Store

NAME = "slurm"
DESCRIPTION = "job arrays on a Slurm cluster, through submitit; needs --profile"
NEEDS_PROFILE = True
LOCK_S = 120.0  # for somebody else who queues cells of the same study just now


def run(plan: Plan, folder: Path, *, workers: int, report: Report, profile: Profile) -> list[Outcome]:
    """Queue what is missing of a plan and not queued already, and wait for all of it.

    Args:
        plan: what to run.
        folder: the study's folder, on a file system that all nodes see.
        workers: ignored; the profile's max_running counts.
        report: called with every event.
        profile: how to queue.

    Returns:
        One outcome per cell, in the plan's order.

    Raises:
        UserError: Slurm refuses the jobs; nothing is left in the queue.
    """
    del workers
    require_slurm()
    cluster = SlurmCluster()
    submit(plan, folder, profile, cluster)
    return Watch(plan, folder, cluster, report, retries=retries_of(plan, folder, profile, cluster)).wait()


def retries_of(plan: Plan, folder: Path, profile: Profile, cluster: Cluster) -> Retries:
    """Return what queues lost cells of a plan again, while a driver waits for it."""

    def queue(again: Mapping[str, Again]) -> Submission | None:
        keys = with_inputs(plan, set(again), set())
        part = replace(plan, cells=tuple(cell for cell in plan.cells if cell.id.key in keys))
        return submit(part, folder, profile, cluster, again=again)

    return Retries(profile, lambda name: partition_called(name, cluster.partitions()), queue)


def submit(
    plan: Plan,
    folder: Path,
    profile: Profile,
    cluster: Cluster,
    told: Callable[[int, int], None] = lambda *_: None,
    again: Mapping[str, Again] | None = None,
) -> Submission | None:
    """Queue what is missing of a plan and not queued already.

    All arrays are queued held, then written down, then released: no job begins before the study's folder says which
    cells it holds, and what fails in between leaves nothing in the queue. What an earlier call that was killed has left
    is completed first, see `completed`.

    Args:
        plan: what to run.
        folder: the study's folder, made by Store.prepare.
        profile: how to queue.
        cluster: where.
        told: called with (arrays queued, arrays in all).
        again: key of a cell that was lost -> what it asks for now.

    Returns:
        What was queued, or None when nothing was left to queue.

    Raises:
        UserError: a cell needs more than the profile gives.
        Refused: Slurm will not take the jobs, or not as many, or could not run them; this call leaves nothing in the
            folder.
        Silent: Slurm does not answer.

    Cost: one sbatch for each array, one squeue, one sinfo, two calls of scontrol; where limits are enforced, see
        check_room. Every committed record is read once, about 1 s per GiB: a damaged one shall be told now.
    """
    with exclusive(folder / "cells", LOCK_S) as is_alone:  # or two would queue the same cells
        earlier = completed(folder, cluster, may_withdraw=is_alone)
        return _submit(plan, folder, profile, cluster, told, again or {}, earlier)


def _submit(
    plan: Plan,
    folder: Path,
    profile: Profile,
    cluster: Cluster,
    told: Callable[[int, int], None],
    again: Mapping[str, Again],
    earlier: list[Submission],
) -> Submission | None:
    store = Store(folder)
    missing = {cell.id.key: cell for cell in plan.cells if not store.is_committed(cell.id)}
    waiting = _in_queue(earlier, cluster)
    todo = [cell for cell in missing.values() if cell.id.key not in waiting]
    if not todo:
        return None
    raised = {key: each.resources for key, each in again.items()}
    arrays = job_arrays(todo, profile, cluster.array_limit(), raised)
    check_partitions(arrays, cluster)
    check_room(arrays, cluster)
    files = SubmissionFolder(folder, f"{plan.study.name}-{secrets.token_hex(4)}")
    started = Submission(
        files.name,
        "queuing",
        profile.model_dump(mode="json", exclude_none=True),
        submitter(),
        datetime.now(UTC).isoformat(timespec="milliseconds"),  # two of one second have an order
        again={key: each.told() for key, each in again.items()},
    )
    files.begin(started)

    def before_release() -> None:
        _forget_failures(todo, store)
        release_claims(todo, store, {each.name for each in earlier})

    return _Submitting(files, cluster, profile, missing, waiting, before_release).queue_all(arrays, started, told)


@dataclass
class _Submitting:
    """Queues the arrays of one submission, or none of them."""

    files: SubmissionFolder
    cluster: Cluster
    profile: Profile
    missing: dict[str, Cell]
    job_of: dict[str, str]  # key of a cell in the queue -> its job, without the element's number
    before_release: Callable[[], None]  # called when all is queued, and no job has begun

    def queue_all(self, arrays: list[JobArray], started: Submission, told: Callable[[int, int], None]) -> Submission:
        queued: list[QueuedArray] = []
        releasing = False  # from then on jobs may have begun
        try:
            for number, array in enumerate(arrays):
                self._check_wanted()
                queued.append(self._queue(number, array))
                told(number + 1, len(arrays))
            self._check_wanted()
            done = replace(started, state="queued", arrays=tuple(queued))
            self.files.write(replace(done, state="releasing"))
            self.before_release()
            releasing = True
            self.cluster.release(_mains(queued))
            self.files.write(done)
        except BaseException as error:
            is_clean = self._withdraw(_mains(queued), started)
            if is_clean and not releasing and isinstance(error, Refused | SlurmFailed | OSError):
                self.files.remove()
            if not isinstance(error, Refused | SlurmFailed):
                raise
            left = "" if is_clean else f" Jobs may be left in the queue: espalier cancel {self.files.study}"
            if isinstance(error, Refused):
                raise Refused(f"{error}{left}") from None
            raise Silent(f"{error}.{left or ' Nothing was queued; try again.'}") from None
        return done

    def _check_wanted(self) -> None:
        """Stop when somebody has cancelled the study while it is being queued."""
        if self.files.read().state != "queuing":
            raise UserError(f"{self.files.study} was cancelled meanwhile. Nothing is left in the queue; submit again.")

    def _queue(self, number: int, array: JobArray) -> QueuedArray:
        self.files.write_array(number, array, ancestors_of(array, self.missing))
        folder = self.files
        asked = array.resources
        more = (self.profile.scratch, asked.time_min, asked.cells_at_once)
        calls = [(str(folder.study), folder.name, number, index, *more) for index in range(len(array.elements))]
        after = needed_jobs(array, self.job_of)
        ids = self.cluster.queue(Order(folder.name, folder.jobs, array.resources, calls, after), self.profile)
        self.job_of |= {cell.id.key: main_job(ids[0]) for cell in array.cells}
        elements = tuple(tuple(cell.id.key for cell in element) for element in array.elements)
        return QueuedArray(number, array.wave, array.resources.model_dump(exclude_none=True), tuple(ids), elements)

    def _withdraw(self, queued: list[str], started: Submission) -> bool:
        """Take back what bears this name: the last sbatch may have queued an array, and what followed it failed.

        Returns whether Slurm has answered, so that nothing is left.
        """
        is_clean = True
        try:
            standing = self.cluster.standing([self.files.name])
            queued = sorted({*queued, *(main_job(job) for job, state in standing.items() if not state.ended)}, key=int)
        except SlurmFailed:
            is_clean = False
        try:
            if queued:
                self.cluster.withdraw(queued)
        except SlurmFailed:
            is_clean = False
        with suppress(OSError):
            self.files.write(replace(started, state="withdrawn"))
        return is_clean


def _in_queue(earlier: list[Submission], cluster: Cluster) -> dict[str, str]:
    """Return key -> job, for the cells that earlier submissions of a folder have in the queue."""
    if not earlier:
        return {}
    try:
        standing = cluster.standing([each.name for each in earlier])
    except SlurmFailed as error:
        raise Silent(f"{error}. What is queued already is not known; try again.") from None
    alive = {job for job, state in standing.items() if not state.ended}
    places = elements_of(earlier, alive)
    return {key: main_job(array.ids[index]) for key, (_, array, index) in places.items() if array.ids[index] in alive}


def _forget_failures(cells: list[Cell], store: Store) -> None:
    """Remove the logs of earlier tries, which would explain a failure that is being tried again."""
    for cell in cells:
        store.log_path(cell.id).unlink(missing_ok=True)


def _mains(arrays: list[QueuedArray]) -> list[str]:
    return [main_job(array.ids[0]) for array in arrays]
