"""What a job does when Slurm warns it: the training is saved, the cell left, and the job queues itself again.

Slurm warns by the signal of `--signal`: before the time limit, and before a preemption where the site has it so. The
two are not told apart: either way the job is over in a moment. SIGTERM comes with a preemption and with scancel; then a
training is saved and goes on, for whoever sent it ends the job, and decides himself whether it comes back.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from suite.training.checkpoint import Interrupted, Notice

LONGEST_LEAD_S = 90  # a step of training and a save take seconds
EARLY_S = 60.0  # Slurm may warn that much earlier than it was asked to
PATIENCE_S = 20.0  # for the next step of a training; after it, what is no training is left as well
CALL_S = 60.0  # for scontrol


def lead_s(time_min: int) -> int:
    """Return how many seconds before its time limit a job is warned: a fifth of short ones, so that they get on."""
    return min(LONGEST_LEAD_S, time_min * 60 // 5)


def least_s(time_min: int) -> float:
    """Return how many seconds a job works before it leaves for a warning.

    With a limit of a few minutes the warning may come at the very start: a job that left then would come back for ever
    and never get on. So it works for half of its limit. Others leave at once: a limit does not warn them that early.
    """
    limit_s = time_min * 60
    return limit_s / 2 if limit_s - lead_s(time_min) - EARLY_S < limit_s / 2 else 0.0


@contextmanager
def heeded(
    notice: Notice, may_requeue: bool, has_progress: Callable[[], bool], earliest_s: float = 0.0
) -> Iterator[None]:
    """Turn Slurm's signals into notices while the context lasts. For the main thread alone.

    Args:
        notice: of the attempts that run in the context.
        may_requeue: if not, a warning is taken for a SIGTERM.
        has_progress: whether a job that begins anew would find more than this one did. It is asked again and again
            when no training answers a warning; if not, the cell goes on until Slurm ends it.
        earliest_s: seconds from now; a warning that comes sooner is a reason to save, and is heeded then.

    Raises:
        Interrupted: in whatever the context runs, when nothing answered and there is progress.
    """
    earliest_s += time.monotonic()
    is_heeded = False

    def heed() -> None:
        nonlocal is_heeded
        notice.stop = is_heeded = True

    def save(number: int, frame: FrameType | None) -> None:
        del number, frame
        notice.save = True

    def warn(number: int, frame: FrameType | None) -> None:
        del number, frame
        wait_s = earliest_s - time.monotonic()
        if wait_s > 0:
            notice.save = True  # should it be a preemption after all, Slurm does not wait
        else:
            heed()
        signal.setitimer(signal.ITIMER_REAL, max(wait_s, 0) or PATIENCE_S, PATIENCE_S)

    def leave(number: int, frame: FrameType | None) -> None:
        del number, frame
        if not is_heeded:
            heed()
        elif has_progress():
            raise Interrupted("what it had saved")

    handlers = {signal.SIGUSR2: warn if may_requeue else save, signal.SIGTERM: save, signal.SIGALRM: leave}
    before = {each: signal.signal(each, handler) for each, handler in handlers.items()}
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for each, handler in before.items():
            signal.signal(each, handler or signal.SIG_DFL)


def requeue() -> str:
    """Queue this very job again; return nothing, or why Slurm refused.

    Slurm ends the job by that, in a moment.
    """
    main, element = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = f"{main}_{element}" if main and element else os.environ["SLURM_JOB_ID"]
    try:
        done = subprocess.run(  # noqa: S603  no shell; the number is Slurm's own
            ["scontrol", "requeue", job],  # noqa: S607  as the site's PATH has it
            capture_output=True,
            text=True,
            timeout=CALL_S,
            check=False,
            errors="replace",
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error).splitlines()[0]
    if done.returncode <= 0:  # below: Slurm ends the job that it has queued again, and met scontrol first
        return ""
    return " ".join(done.stderr.split()) or f"exit code {done.returncode}"
