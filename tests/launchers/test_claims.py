"""Claims of jobs that were killed on a node that nobody here can look into."""

import json
from pathlib import Path

import pytest

from launchers import slurm
from launchers._cancel import cancel
from launchers._profile import Profile
from launchers._retry import let_go
from launchers._slurm_cluster import SlurmCluster
from launchers._standing import overview
from launchers._submission import SubmissionFolder, submissions
from suite.claim import Owner
from suite.plan import Plan
from suite.progress import Standing
from suite.store import Store
from tests.launchers.fake_slurm import FakeSlurm

PROFILE = Profile(time_min=20, cells_per_job=2)


@pytest.fixture
def at_work(tiny_plan: Plan, fake: FakeSlurm, study: Path) -> str:
    """A study in the queue whose first job computes the first cell; return that job."""
    slurm.submit(tiny_plan, study, PROFILE, SlurmCluster())
    submission = submissions(study)[0]
    job = submission.arrays[0].ids[0]
    SubmissionFolder(study, submission.name).tell(0, 0, {"event": "started", "cell": tiny_plan.cells[0].id.key})
    fake.set(job, state="RUNNING")
    claim(tiny_plan, study).write_text(json.dumps(vars(Owner("n9", "n9 boot 1", 7, "8", f"{submission.name} 12", "0"))))
    return job


def claim(plan: Plan, folder: Path) -> Path:
    return folder / "cells" / f"{plan.cells[0].id.name}.claim-0"


def first(plan: Plan, folder: Path) -> Standing:
    return overview(plan, folder, SlurmCluster()).cells[0]


def test_a_killed_job_s_cell_is_lost_at_once(tiny_plan: Plan, fake: FakeSlurm, study: Path, at_work: str) -> None:
    assert (first(tiny_plan, study).state, first(tiny_plan, study).message) == ("running", "job 12 on n9")
    fake.set(at_work, state="NODE_FAIL")
    fake.fails("squeue", "Unable to contact slurm controller")
    assert first(tiny_plan, study).state == "running"  # for all that is known
    fake.works("squeue")
    assert first(tiny_plan, study).state == "lost"
    assert claim(tiny_plan, study).exists()  # who only looks writes nothing


def test_the_next_submission_does_not_wait_for_it(tiny_plan: Plan, fake: FakeSlurm, study: Path, at_work: str) -> None:
    slurm.submit(tiny_plan, study, PROFILE, SlurmCluster())
    assert claim(tiny_plan, study).exists()  # its job runs
    fake.set(at_work, state="NODE_FAIL")
    slurm.submit(tiny_plan, study, PROFILE, SlurmCluster())
    assert not claim(tiny_plan, study).exists()


def test_nothing_is_claimed_after_a_cancel(tiny_plan: Plan, fake: FakeSlurm, study: Path, at_work: str) -> None:
    cancel(tiny_plan, study, SlurmCluster(), sleep=lambda _: None)
    assert not claim(tiny_plan, study).exists()


def test_a_retry_in_this_process_does_not_wait(tiny_plan: Plan, fake: FakeSlurm, study: Path, at_work: str) -> None:
    names = [submissions(study)[0].name]
    let_go(tiny_plan, overview(tiny_plan, study, SlurmCluster()).cells, Store(study), names)
    assert claim(tiny_plan, study).exists()
    fake.set(at_work, state="NODE_FAIL")
    let_go(tiny_plan, overview(tiny_plan, study, SlurmCluster()).cells, Store(study), names)
    assert not claim(tiny_plan, study).exists()


@pytest.mark.parametrize("job", ["", "somebody-else 12"])
def test_claims_of_others_are_left_alone(job: str, tiny_plan: Plan, fake: FakeSlurm, study: Path, at_work: str) -> None:
    claim(tiny_plan, study).write_text(json.dumps(vars(Owner("n9", "n9 boot 1", 7, "8", job, "0"))))
    fake.set(at_work, state="NODE_FAIL")
    assert first(tiny_plan, study).state == "running"
    slurm.submit(tiny_plan, study, PROFILE, SlurmCluster())
    cancel(tiny_plan, study, SlurmCluster(), sleep=lambda _: None)
    assert claim(tiny_plan, study).exists()
