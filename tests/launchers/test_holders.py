"""Cells that were queued twice: the job that is alive holds them, whichever was queued last."""

import json
from pathlib import Path

import pytest

from launchers import slurm
from launchers._events import Event
from launchers._holders import Holders
from launchers._profile import Profile
from launchers._slurm_cluster import SlurmCluster
from launchers._standing import overview
from launchers._submission import Submission, SubmissionFolder, elements_of, submissions
from launchers._watch import Watch
from suite.claim import Owner
from suite.plan import Plan
from tests.launchers.fake_slurm import FakeSlurm

PROFILE = Profile(time_min=20, cells_per_job=2)


@pytest.fixture
def twice(tiny_plan: Plan, fake: FakeSlurm, study: Path) -> tuple[Submission, Submission]:
    """A study that two people queued at the same time; the second one's jobs were cancelled, those of the first run."""
    first = slurm.submit(tiny_plan, study, PROFILE, SlurmCluster())
    assert first is not None
    hidden = study / "hidden"
    (study / "slurm" / first.name).rename(hidden)
    second = slurm.submit(tiny_plan, study, PROFILE, SlurmCluster())
    assert second is not None
    hidden.rename(study / "slurm" / first.name)
    for job, each in fake.jobs.items():
        fake.set(job, state="RUNNING" if each["name"] == first.name else "CANCELLED")
    return first, second


def test_status_tells_of_the_job_that_is_alive(
    tiny_plan: Plan, study: Path, twice: tuple[Submission, Submission]
) -> None:
    cells = overview(tiny_plan, study, SlurmCluster()).cells
    assert {each.state for each in cells} == {"queued"}
    assert {each.job for each in cells} == {job for array in twice[0].arrays for job in array.ids}


def test_nothing_is_queued_a_third_time_and_a_live_claim_stays(
    tiny_plan: Plan, study: Path, twice: tuple[Submission, Submission]
) -> None:
    claim = study / "cells" / f"{tiny_plan.cells[0].id.name}.claim-0"
    claim.write_text(json.dumps(vars(Owner("n9", "n9 boot 1", 7, "8", f"{twice[0].name} 12", "0"))))
    assert slurm.submit(tiny_plan, study, PROFILE, SlurmCluster()) is None
    assert claim.exists()


def test_a_driver_waits_for_the_job_that_is_alive_and_tells_how_it_ended(
    tiny_plan: Plan, fake: FakeSlurm, study: Path, twice: tuple[Submission, Submission]
) -> None:
    events: list[Event] = []
    jobs = [job for array in twice[0].arrays for job in array.ids]
    looks = iter([lambda: None, lambda: [fake.set(job, state="NODE_FAIL") for job in jobs]])
    watch = Watch(tiny_plan, study, SlurmCluster(), events.append, settle_s=0, lag_s=0, sleep=lambda _: next(looks)())
    outcomes = watch.wait()
    assert outcomes[0].message.startswith(f"its job {jobs[0]} lost its node")


def test_what_is_queued_once_more_answers_from_then_on(
    tiny_plan: Plan, fake: FakeSlurm, study: Path, twice: tuple[Submission, Submission]
) -> None:
    holders = Holders(study)
    key = tiny_plan.cells[0].id.key
    holders.find({job for array in twice[0].arrays for job in array.ids})
    assert holders.places[key][0].name == twice[0].name
    for job in fake.jobs:
        fake.set(job, state="NODE_FAIL")
    holders.find(())
    assert holders.places[key][0].name == twice[0].name
    third = slurm.submit(tiny_plan, study, PROFILE, SlurmCluster())
    assert third is not None
    holders.reread()
    assert holders.places[key][0].name == third.name


def test_a_number_that_has_begun_again_means_the_last_job_that_has_it(
    tiny_plan: Plan, study: Path, twice: tuple[Submission, Submission]
) -> None:
    files = SubmissionFolder(study, twice[1].name)
    values = json.loads((files.path / "submission.json").read_text())
    job = twice[0].arrays[0].ids[0]
    values["arrays"][1]["ids"][0] = job  # what waits in the second, and an input of it in the first
    (files.path / "submission.json").write_text(json.dumps(values))
    found = elements_of(submissions(study), {job})
    assert {found[key][0].name for key in twice[0].arrays[0].elements[0]} == {twice[1].name}
