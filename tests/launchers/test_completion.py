"""What a killed call of submit has left is completed by the next one: let go if it was whole, else taken back."""

from dataclasses import replace
from pathlib import Path

import pytest

from launchers import slurm
from launchers._completion import submitter
from launchers._profile import Profile
from launchers._slurm_cluster import SlurmCluster
from launchers._submission import SubmissionFolder, all_submissions, submissions
from suite.plan import Plan
from suite.store import Store
from tests.launchers.fake_slurm import FakeSlurm

PROFILE = Profile(time_min=20)


class Killed(BaseException):
    """Ends a call as a kill would: nothing after it is done."""


def queue(plan: Plan, study: Path) -> object:
    return slurm.submit(plan, study, PROFILE, SlurmCluster())


def killed_at(what: str, plan: Plan, study: Path, number: int = 1) -> None:
    """Queue a plan and be killed in the cluster's method of that name, at its how-manieth call."""
    calls = 0

    def die(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls >= number:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        real = getattr(SlurmCluster, what)
        patch.setattr(SlurmCluster, what, lambda *words: die() or real(*words))
        patch.setattr(slurm._Submitting, "_withdraw", die)
        with pytest.raises(Killed):
            queue(plan, study)


def test_what_was_written_down_whole_is_let_go(tiny_plan: Plan, fake: FakeSlurm, study: Path) -> None:
    killed_at("release", tiny_plan, study)
    jobs = set(fake.jobs)
    assert {job["why"] for job in fake.jobs.values()} == {"JobHeldUser"}
    assert [each.state for each in submissions(study)] == ["releasing"]
    assert queue(tiny_plan, study) is None
    assert set(fake.jobs) == jobs
    assert "JobHeldUser" not in {job["why"] for job in fake.jobs.values()}
    assert [each.state for each in submissions(study)] == ["queued"]
    fake.run_all()
    assert all(Store(study).is_committed(cell.id) for cell in tiny_plan.cells)


def test_what_was_not_is_taken_back_and_queued_anew(tiny_plan: Plan, fake: FakeSlurm, study: Path) -> None:
    killed_at("queue", tiny_plan, study, number=2)
    held = set(fake.jobs)
    assert held
    assert queue(tiny_plan, study) is not None
    assert {fake.jobs[job]["state"] for job in held} == {"CANCELLED"}
    assert sorted(each.state for each in all_submissions(study)) == ["queued", "withdrawn"]
    assert sum(job["state"] == "PENDING" for job in fake.jobs.values()) == len(tiny_plan.cells)


def test_that_of_another_machine_may_be_at_work(tiny_plan: Plan, fake: FakeSlurm, study: Path) -> None:
    killed_at("queue", tiny_plan, study, number=2)
    (left,) = submissions(study)
    assert left.host == submitter()
    SubmissionFolder(study, left.name).write(replace(left, host="somebody@far"))
    held = set(fake.jobs)
    queue(tiny_plan, study)
    assert {fake.jobs[job]["state"] for job in held} == {"PENDING"}
