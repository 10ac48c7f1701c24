"""A job as a process of its own, started by submitit's local executor; the fake Slurm only takes the arrays."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import submitit

from launchers import inline, slurm
from launchers._profile import Profile
from launchers._slurm_cluster import SlurmCluster
from launchers._slurm_job import run_element
from launchers._submission import SubmissionFolder, submissions
from suite.plan import Plan
from suite.store import Store
from tests.launchers.fake_slurm import FakeSlurm

PROFILE = Profile(time_min=20, cells_per_job=5)


def run_locally(study: Path, folder: Path) -> list[submitit.Job[None]]:
    """Run every element of what was queued, one after the other, each in a process that unpickles what it is told."""
    (submission,) = submissions(study)
    executor = submitit.LocalExecutor(folder)
    executor.update_parameters(timeout_min=2, stderr_to_stdout=True)
    jobs = []
    for array in submission.arrays:
        for index in range(len(array.elements)):
            job = executor.submit(run_element, str(study), submission.name, array.number, index, None, 20)
            job.wait()
            jobs.append(job)
    return jobs


def test_elements_commit_the_records_of_inline(
    tiny_plan: Plan,
    run_with: Callable[..., Any],
    science: Callable[[Path], dict[str, Any]],
    fake: FakeSlurm,
    study: Path,
    tmp_path: Path,
) -> None:
    slurm.submit(tiny_plan, study, PROFILE, SlurmCluster())
    jobs = run_locally(study, tmp_path / "jobs")
    assert [job.exception() for job in jobs] == [None] * len(jobs)
    assert all(Store(study).is_committed(cell.id) for cell in tiny_plan.cells)
    assert science(study) == science(run_with(inline, tiny_plan, tmp_path / "inline").folder)
    told = SubmissionFolder(study, submissions(study)[0].name).told(0, 0)
    assert [event["event"] for event in told][:2] == ["started", "ended"]
    assert fake.calls()["squeue"] == 0


def test_an_element_whose_cell_fails_ends_with_an_error_and_those_after_it_name_the_root(
    tiny_plan: Plan, fake: FakeSlurm, study: Path, tmp_path: Path
) -> None:
    lost = dataclasses.replace(tiny_plan.cells[0], places={"data": "/nowhere/x.h5"})
    plan = dataclasses.replace(tiny_plan, cells=(lost, *tiny_plan.cells[1:]))
    slurm.submit(plan, study, PROFILE, SlurmCluster())
    first, *_ = jobs = run_locally(study, tmp_path / "jobs")
    with pytest.raises(submitit.core.utils.FailedJobError, match=r"of \d+ cells failed; espalier status"):
        first.result()
    ended = [
        event
        for array in submissions(study)[0].arrays
        for index in range(len(array.elements))
        for event in SubmissionFolder(study, submissions(study)[0].name).told(array.number, index)
        if event["event"] == "ended" and event["status"] == "upstream_failed"
    ]
    assert len(jobs) >= 2
    assert ended
    assert all(lost.id.name in event["message"] for event in ended)
