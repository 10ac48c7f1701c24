"""How jobs stand, as squeue and sacct write it."""

from collections.abc import Iterator
from dataclasses import dataclass

# Final states; every other one, also one that this code has never heard of, is that of a job that may still run.
ENDED = frozenset(
    [
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "LAUNCH_FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PREEMPTED",
        "TIMEOUT",
    ]
)


@dataclass(frozen=True)
class JobState:
    """How a job stands: Slurm's word, why it waits or how it ended, and where it ran."""

    state: str
    reason: str = ""
    node: str = ""

    @property
    def ended(self) -> bool:
        """Return whether it will not run any more."""
        return self.state in ENDED


def states_in(lines: str) -> Iterator[tuple[str, JobState]]:
    """Yield (job, state) of "id|state|reason|node" lines; sacct writes elements that never began as 12_[3-5,8]."""
    for line in lines.splitlines():
        job, state, reason, node = (f"{line}|||".split("|"))[:4]
        words = state.split()  # "CANCELLED by 1000"
        if not words or "." in job:
            continue
        for each in _expanded(job):
            yield each, JobState(words[0].rstrip("+"), "" if reason == "None" else reason, node)


def _expanded(job: str) -> list[str]:
    main, _, ranges = job.partition("_[")
    if not ranges:
        return [job]
    found = []
    for part in ranges.partition("]")[0].partition("%")[0].split(","):
        first, _, last = part.partition("-")
        if first.isdigit():
            found += [f"{main}_{number}" for number in range(int(first), int(last or first) + 1)]
    return found
