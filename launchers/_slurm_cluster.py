"""Slurm as the launcher sees it: queue arrays through submitit, ask how jobs stand, take jobs back.

A call to Slurm never decides what is done. submitit only queues and starts: its result pickles, and what it says of
jobs, are not read.
"""

import io
import shutil
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from launchers._job_environment import job_environment
from launchers._job_states import JobState, states_in
from launchers._profile import Profile, Resources
from launchers._refusals import refusal
from launchers._slurm_call import SlurmFailed, call, spoken
from launchers._slurm_facts import (
    Allowance,
    Partition,
    allowance,
    configuration,
    max_array_size,
    num_queued,
    partitions,
)
from launchers._slurm_job import run_element
from launchers._warning import lead_s
from suite.errors import STORAGE_ERRORS, UserError


@dataclass(frozen=True)
class Order:
    """What one sbatch is given: arguments of a function for each element, and what they ask for."""

    name: str
    jobs: Path
    resources: Resources
    calls: Sequence[tuple[Any, ...]]
    after: Sequence[str] = ()
    function: Callable[..., None] = run_element


class Cluster(Protocol):
    """What the launcher needs of a cluster."""

    def array_limit(self) -> int:
        """Return how many elements an array may have."""

    def room(self, asked: Resources) -> tuple[Allowance, int]:
        """Return how many jobs of this kind the user may have at a time, and how many he has."""

    def partitions(self) -> dict[str, Partition]:
        """Return all partitions by name; none where they are not known."""

    def queue(self, order: Order, profile: Profile) -> list[str]:
        """Queue an array, held; return the job of each element."""

    def release(self, ids: Sequence[str]) -> None:
        """Let held arrays run."""

    def withdraw(self, ids: Sequence[str]) -> None:
        """Take arrays out of the queue."""

    def standing(self, names: Sequence[str]) -> dict[str, JobState]:
        """Return the jobs in the queue that bear these names."""

    def history(self, names: Sequence[str], since: str) -> dict[str, JobState]:
        """Return how jobs with these names ended, as accounting has it."""


class SlurmCluster:
    """The Slurm that the commands on the PATH talk to."""

    def __init__(self) -> None:
        """Ask nothing yet."""
        self._known: dict[str, str] = {}

    @property
    def _config(self) -> dict[str, str]:
        """Return the controller's configuration, asked for once; nothing while it does not answer."""
        if not self._known:
            with suppress(SlurmFailed):  # whatever else is asked of Slurm will say why
                self._known = configuration()
        return self._known

    def array_limit(self) -> int:
        """Return one less than MaxArraySize, or than Slurm's default when it does not tell."""
        return max(1, max_array_size(self._config) - 1)

    def room(self, asked: Resources) -> tuple[Allowance, int]:
        """Return how many jobs of this kind the user may have at a time, and how many he has.

        No limit is known where Slurm does not tell: sbatch has the last word.
        """
        try:
            limit = allowance(self._config, asked.account, asked.qos, asked.partition)
            return limit, num_queued(limit) if limit.limit is not None else 0
        except SlurmFailed:
            return Allowance(), 0

    def partitions(self) -> dict[str, Partition]:
        """Return all partitions by name, by one sinfo; none where Slurm does not answer."""
        try:
            return partitions()
        except SlurmFailed:
            return {}

    def would_take(self, asked: Resources, profile: Profile) -> str:
        """Return what sbatch says of a job that asks for this, without queueing it.

        Raises:
            Refused: it would not be taken; with Slurm's own words.
            SlurmFailed: Slurm does not answer.
        """
        names = {"partition": "partition", "account": "account", "qos": "qos", "constraint": "constraint"}
        names |= {"nodes": "nodes", "cpus": "cpus-per-task", "time_min": "time"}
        values = {option: getattr(asked, name) for name, option in names.items()}
        values |= {"gpus-per-node": asked.gpus or None, "mem": _memory(asked)}
        options = [f"--{option}={value}" for option, value in values.items() if value is not None]
        try:
            with job_environment(profile.environment):
                said = " ".join(spoken("sbatch", "--test-only", *options, "--wrap=true")[1].split())
        except SlurmFailed as error:
            raise refusal(str(error).removeprefix("sbatch: "), asked) from None
        return said.removeprefix("sbatch: ")

    def queue(self, order: Order, profile: Profile) -> list[str]:
        """Queue an array by one sbatch, held until it is released.

        Raises:
            Refused: Slurm will not take it; with its own words.
            SlurmFailed: Slurm does not answer.
        """
        from submitit import SlurmExecutor
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        # A new executor for each array: submitit's parameters stick, a dependency most of all.
        executor = SlurmExecutor(order.jobs, python=profile.python)
        executor.update_parameters(**parameters(order, profile))
        said = io.StringIO()
        try:
            with redirect_stderr(said), job_environment(profile.environment):
                submitted = executor.map_array(order.function, *zip(*order.calls, strict=True))
        except (FailedJobError, FailedSubmissionError, OSError) as error:
            if isinstance(error, OSError) and error.errno in STORAGE_ERRORS:
                raise  # a full disk is no refusal
            raise refusal(str(error), order.resources) from None
        return [str(job.job_id) for job in submitted]

    def release(self, ids: Sequence[str]) -> None:
        """Let arrays run, by one call.

        Raises:
            SlurmFailed: see its words.
        """
        call("scontrol", "release", ",".join(ids))

    def withdraw(self, ids: Sequence[str]) -> None:
        """Take arrays out of the queue, by one call.

        Raises:
            SlurmFailed: see its words.
        """
        call("scancel", *ids)

    def standing(self, names: Sequence[str]) -> dict[str, JobState]:
        """Return the state of every job with these names that the controller knows, by one call of squeue.

        Raises:
            SlurmFailed: the controller does not answer.
        """
        form = "%i|%T|%r|%N"
        lines = call("squeue", "--noheader", "--array", "--states=all", f"--format={form}", f"--name={','.join(names)}")
        return dict(states_in(lines))

    def history(self, names: Sequence[str], since: str) -> dict[str, JobState]:
        """Return how jobs with these names ended, by one call of sacct.

        Raises:
            SlurmFailed: there is no accounting, or it does not answer.
        """
        columns = "JobID,State,ExitCode,NodeList"
        # All users: a colleague may have queued some of them; names are random enough.
        words = (
            "--noheader",
            "--parsable2",
            "--allocations",
            "--allusers",
            f"--format={columns}",
            f"--starttime={since}",
        )
        return dict(states_in(call("sacct", *words, f"--name={','.join(names)}")))


def require_slurm() -> None:
    """Check that this is a login node with all that submitting needs.

    Raises:
        UserError: submitit or a command of Slurm is missing, or Slurm does not answer.

    Cost: one scontrol.
    """
    try:
        import submitit  # noqa: F401  asked for here, so that a plan is refused before anything is written
    except ImportError:
        raise UserError("Slurm needs submitit. Install it: pip install -e '.[slurm]'.") from None
    missing = [each for each in ("sbatch", "srun", "squeue", "scontrol", "scancel") if shutil.which(each) is None]
    if missing:
        raise UserError(f"{missing[0]} is not on the PATH. Expected: a machine where Slurm's commands work.")
    try:
        configuration()
    except SlurmFailed as error:
        raise UserError(
            f"Slurm does not answer ({error}). Expected: a machine where sinfo works; does SLURM_CONF name its "
            "configuration? Nothing was queued."
        ) from None


def parameters(order: Order, profile: Profile) -> dict[str, Any]:
    """Return what submitit puts into the script of an array; every value has passed the profile's checks."""
    asked = order.resources
    # The signal is named here, because submitit takes its own from the environment of whoever submits.
    more = {"hold": True, "requeue": True, "export": "ALL", "signal": f"USR2@{lead_s(asked.time_min)}"}
    words: dict[str, Any] = {
        "job_name": order.name,
        "time": asked.time_min,
        "cpus_per_task": asked.cpus,
        "partition": asked.partition,
        "account": asked.account,
        "qos": asked.qos,
        "constraint": asked.constraint,
        "gpus_per_node": asked.gpus or None,
        "mem": _memory(asked),
        "array_parallelism": profile.max_running,
        "setup": _setup(profile),
        "nodes": asked.nodes,
        # One driver, however many nodes; from Slurm 22.05 on a step gets one processor unless srun is told otherwise.
        "srun_args": ["--nodes=1", "--ntasks=1", f"--cpus-per-task={asked.cpus}", *_container(profile)],
        "wckey": None,  # submitit's own would be refused where wckeys are checked
    }
    if order.after:
        words["dependency"] = f"afterany:{':'.join(order.after)}"
        more |= {"kill-on-invalid-dep": "yes"}
    return words | {"additional_parameters": more}


def _memory(asked: Resources) -> str | None:
    return f"{round(asked.memory_gib * 1024)}M" if asked.memory_gib else None


def _setup(profile: Profile) -> list[str] | None:
    lines = []
    if profile.modules:
        lines.append("type module >/dev/null 2>&1 || . /etc/profile")  # a job's shell is no login shell
        lines += [f"module load {' '.join(profile.modules)}"]
    return [*lines, *profile.setup] or None


def _container(profile: Profile) -> list[str]:
    if profile.container is None:
        return []
    mounts = profile.container.mounts
    return [f"--container-image={profile.container.image}", *([f"--container-mounts={mounts}"] if mounts else [])]
