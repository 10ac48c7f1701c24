"""A job as a process of its own, started by submitit's local executor; the fake Slurm only takes the arrays."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import submitit

from launchers import _slurm_job, inline, slurm
from launchers._element import Element
from launchers._profile import Profile
from launchers._slurm_cluster import SlurmCluster
from launchers._slurm_job import run_element
from launchers._submission import SubmissionFolder, submissions
from suite.attempt import Outcome
from suite.plan import Cell, Plan
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


def test_where_a_cell_has_taken_the_gpu_those_after_it_are_not_begun(
    tiny_plan: Plan, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    element = Element(SubmissionFolder(study, "none"), 0, 0)
    bad, *others = tiny_plan.cells
    begun: list[Cell] = []

    def run(cell: Cell, *more: Any) -> Outcome:
        begun.append(cell)
        return Outcome(cell.id, "failed" if cell is bad else "done")

    monkeypatch.setattr(element, "run", run)
    monkeypatch.setattr(_slurm_job, "gpu_is_lost", lambda: True)
    with pytest.raises(_slurm_job.CellsFailed, match=f"taken the GPU from its job; {len(others)} are left$"):
        _slurm_job._one_after_the_other(element, [others[0], bad, *others], {}, Mock())
    assert begun == [others[0], bad]
    assert _slurm_job._one_after_the_other(element, [*others, bad], {}, Mock()) == 1


def test_on_a_gpu_cells_are_computed_in_a_child_unless_their_probes_are_spread(
    tiny_plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, spread, cells = Mock(), Mock(), tiny_plan.cells
    alone.spread.return_value = False
    spread.spread.side_effect = lambda cell: cell is cells[-1]
    assert not _slurm_job._in_children(cells, 1, alone)
    assert _slurm_job._in_children(cells, 2, alone)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert _slurm_job._in_children(cells, 1, alone)
    assert not _slurm_job._in_children(cells, 1, spread)
    assert not _slurm_job._in_children(cells[:1], 1, alone)
