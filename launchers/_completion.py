"""Submissions whose process was killed in the midst: their jobs are held, and nobody would ever let them go."""

import getpass
import platform
from dataclasses import replace
from pathlib import Path

from launchers._refusals import Silent
from launchers._slurm_call import SlurmFailed
from launchers._slurm_cluster import Cluster
from launchers._submission import Submission, SubmissionFolder, main_job, submissions


def submitter() -> str:
    """Return who submits, and where."""
    return f"{getpass.getuser()}@{platform.node()}"


def completed(folder: Path, cluster: Cluster, *, may_withdraw: bool) -> list[Submission]:
    """Complete what killed calls of submit have left, and return all submissions that came to be queued.

    One that was written down whole is let go. Of one that was not, the jobs are taken back.

    Args:
        folder: the study's.
        cluster: where it was submitted.
        may_withdraw: nobody else on this machine queues cells of the study now. On other machines somebody may.

    Raises:
        Silent: Slurm does not answer.

    Cost: nothing where all are complete; else one squeue, and one scontrol or scancel, for each that is not.
    """
    found = submissions(folder)
    broken = [each for each in found if each.state in ("releasing", "queuing")]
    try:
        for each in broken:
            jobs = sorted({main_job(job) for job, state in cluster.standing([each.name]).items() if not state.ended})
            if each.state == "releasing":
                _let_go(folder, each, jobs, cluster)
            elif may_withdraw and each.host.rpartition("@")[2] == platform.node():
                _take_back(folder, each, jobs, cluster)
    except SlurmFailed as error:
        raise Silent(f"{error}. A submission that was interrupted cannot be completed yet; try again.") from None
    return submissions(folder) if broken else found


def _let_go(folder: Path, submission: Submission, jobs: list[str], cluster: Cluster) -> None:
    if jobs:
        cluster.release(jobs)
    SubmissionFolder(folder, submission.name).write(replace(submission, state="queued"))


def _take_back(folder: Path, submission: Submission, jobs: list[str], cluster: Cluster) -> None:
    if jobs:
        cluster.withdraw(jobs)
    SubmissionFolder(folder, submission.name).write(replace(submission, state="withdrawn"))
