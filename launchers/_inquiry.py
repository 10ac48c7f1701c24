"""A waiting driver's questions to Slurm: who does not answer is told once, and nothing is concluded meanwhile."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from launchers._events import Report, Said
from launchers._job_states import JobState
from launchers._slurm_call import AccountingOff, SlurmFailed
from launchers._slurm_cluster import Cluster
from launchers._submission import Submission, day_before


@dataclass
class Inquiry:
    """Asks a cluster.

    Attributes:
        cluster: that is asked.
        report: hears who does not answer, and who answers again.
    """

    cluster: Cluster
    report: Report
    _ended: dict[str, JobState] = field(default_factory=dict)  # jobs that squeue still knew after their end
    _silent: set[str] = field(default_factory=set)  # who does not answer

    def standing(self, submitted: Sequence[Submission]) -> dict[str, JobState] | None:
        """Return the jobs in the queue, or None while Slurm does not answer; what runs is not concerned."""
        try:
            standing = self.cluster.standing([each.name for each in submitted]) if submitted else {}
        except SlurmFailed as error:
            self.say_once("Slurm", f"Slurm does not answer ({error}); waiting, the jobs go on")
            return None
        self.answers("Slurm")
        self._ended |= {job: state for job, state in standing.items() if state.ended}
        return standing

    def history(self, submitted: Sequence[Submission]) -> dict[str, JobState] | None:
        """Return how jobs ended, or None while accounting does not answer: it is waited for, as Slurm is."""
        try:
            history = self.cluster.history([each.name for each in submitted], day_before(submitted))
        except AccountingOff as error:
            self.say_once("accounting", f"there is no accounting ({error}); the reasons of lost jobs stay unknown")
            return {job: JobState(state.state, "", state.node) for job, state in self._ended.items()}
        except SlurmFailed as error:
            self.say_once(
                "accounting",
                f"accounting does not answer ({error}); waiting for it to tell why jobs were lost, the others go on",
            )
            return None
        self.answers("accounting")
        return history

    @property
    def has_accounting(self) -> bool:
        """Return whether accounting answered when it was asked last."""
        return "accounting" not in self._silent

    def say_once(self, who: str, line: str) -> None:
        """Tell that somebody does not answer, unless it is told already."""
        if who not in self._silent:
            self._silent.add(who)
            self.report(Said(line))

    def answers(self, who: str) -> None:
        """Tell that somebody answers again, if it is told that he does not."""
        if who in self._silent:
            self._silent.remove(who)
            self.report(Said(f"{who} answers again"))
