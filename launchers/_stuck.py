"""Jobs that wait for a reason that no time mends: a driver that waits for nothing else says so."""

import re
import shlex
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from launchers._events import Report, Said
from launchers._job_states import JobState

# Somebody has to release the job, open the partition, or ask for less; limits of a user or a group pass, those of a job
# (PerJob, PerNode, Min) do not.
_FOR_EVER = re.compile(
    r"held|JobHold|BadConstraints|Partition(Config|NodeLimit|TimeLimit|Down|Inactive)|Invalid(Account|QOS)|NotAllowed"
    r"|NeverSatisfied|Per(Job|Node)(Limit)?$|QOSMin|(QOS|Association)TimeLimit",
    re.IGNORECASE,
)


@dataclass
class Stuck:
    """Notices that all that is left waits for ever.

    Attributes:
        folder: the study's.
        report: hears it, once for the same reasons.
        settle_s: how long it has to be so: jobs are held for a moment while they are queued.
    """

    folder: Path
    report: Report
    settle_s: float
    _since_s: float | None = None
    _told: set[frozenset[str]] = field(default_factory=set)

    def look(self, jobs: Mapping[str, JobState | None]) -> None:
        """Take how the jobs stand whose cells have no end; None for one that is not in the queue."""
        reasons = reasons_for_ever(jobs)
        if not reasons:
            self._since_s = None
            return
        now_s = time.monotonic()
        self._since_s = now_s if self._since_s is None else self._since_s
        if now_s - self._since_s < self.settle_s or frozenset(reasons) in self._told:
            return
        self._told.add(frozenset(reasons))
        job = next(job for job, state in jobs.items() if state and state.reason in reasons)
        words = ", ".join(f"{number} for {reason}" for reason, number in reasons.items())
        self.report(
            Said(
                f"nothing that is left starts by itself; jobs wait: {words}. Waiting until that is mended; see "
                f"scontrol show job {job}, or take them back: espalier cancel {shlex.quote(str(self.folder))}"
            )
        )


def reasons_for_ever(jobs: Mapping[str, JobState | None]) -> Counter[str]:
    """Return reason -> number of jobs that wait for it for ever; nothing if any job may get on without help."""
    found: Counter[str] = Counter()
    for state in jobs.values():
        if state is None or state.state != "PENDING":
            return Counter()
        if _FOR_EVER.search(state.reason):
            found[state.reason] += 1
        elif state.reason != "Dependency":  # those wait for the others
            return Counter()
    return found
