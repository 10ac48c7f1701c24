import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from launchers import inline, slurm
from launchers._cancel import cancel
from launchers._profile import Profile
from launchers._slurm_cluster import SlurmCluster
from launchers._standing import Overview, overview
from launchers._submission import SubmissionFolder, submissions
from suite.plan import Plan
from suite.progress import Standing
from tests.launchers.fake_slurm import FakeSlurm

PROFILE = Profile(time_min=20, memory_gib=0.5, cells_per_job=2)


@pytest.fixture
def queued(tiny_plan: Plan, fake: FakeSlurm, study: Path) -> Path:
    slurm.submit(tiny_plan, study, PROFILE, SlurmCluster())
    return study


def seen(plan: Plan, folder: Path) -> Overview:
    return overview(plan, folder, SlurmCluster())


def states(found: Overview) -> Counter[str]:
    return Counter(each.state for each in found.cells)


def begun(folder: Path, **more: Any) -> str:
    """Tell, as its job would, that the first cell was begun; return its job."""
    submission = submissions(folder)[-1]
    array = submission.arrays[0]
    event = {"event": "started", "cell": array.elements[0][0], "slurmd_nodename": "n1"} | more
    SubmissionFolder(folder, submission.name).tell(array.number, 0, event)
    return array.ids[0]


def root(plan: Plan, found: Overview) -> Standing:
    return next(each for each in found.cells if each.name == plan.cells[0].id.name)


def test_a_study_that_was_never_queued_asks_no_slurm(
    tiny_plan: Plan, fake: FakeSlurm, run_with: Any, study: Path
) -> None:
    assert states(seen(tiny_plan, study)) == {"missing": len(tiny_plan.cells)}
    run_with(inline, tiny_plan, study)
    found = seen(tiny_plan, study)
    assert (states(found), found.waves, found.notes) == ({"done": len(tiny_plan.cells)}, False, ())
    assert not fake.calls()


def test_what_waits_is_told_with_slurm_s_reason(tiny_plan: Plan, fake: FakeSlurm, queued: Path) -> None:
    before = fake.calls()
    found = seen(tiny_plan, queued)
    by_wave = {each.wave: (each.state, each.message) for each in found.cells}
    assert by_wave == {0: ("queued", "Priority"), 1: ("waiting", "Dependency")}
    assert fake.calls() - before == {"squeue": 1}


def test_a_running_cell_is_told_with_its_node_and_its_tries(tiny_plan: Plan, fake: FakeSlurm, queued: Path) -> None:
    begun(queued)
    fake.set(begun(queued), state="RUNNING")
    found = root(tiny_plan, seen(tiny_plan, queued))
    assert (found.state, found.node, found.attempts) == ("running", "n1", 2)


def test_a_cell_behind_another_in_a_running_job_is_queued(tiny_plan: Plan, fake: FakeSlurm, queued: Path) -> None:
    array = submissions(queued)[0].arrays[0]
    first, second = array.elements[0]
    fake.set(begun(queued), state="RUNNING")
    found = {each.name.partition("-")[2]: each for each in seen(tiny_plan, queued).cells}
    assert found[first[:16]].state == "running"
    assert (found[second[:16]].state, found[second[:16]].message) == ("queued", "its job is RUNNING")


def test_lost_cells_are_explained_by_one_sacct(tiny_plan: Plan, fake: FakeSlurm, queued: Path) -> None:
    for job in fake.jobs:
        fake.set(job, state="TIMEOUT")
    before = fake.calls()
    found = seen(tiny_plan, queued)
    assert states(found) == {"lost": len(tiny_plan.cells)}
    assert "reached its time limit; raise time_min of the profile (now 20)" in found.cells[0].message
    assert fake.calls() - before == {"squeue": 1, "sacct": 1}
    fake.fails("sacct", "Problem talking to the database")
    found = seen(tiny_plan, queued)
    assert "is gone and accounting does not know why" in found.cells[0].message
    assert "accounting does not answer (sacct: Problem talking to the database)" in found.notes[0]


def test_failures_and_what_needs_them_are_told_by_name(tiny_plan: Plan, fake: FakeSlurm, study: Path) -> None:
    lost = dataclasses.replace(tiny_plan.cells[0], places={"data": "/nowhere/x.h5"})
    plan = dataclasses.replace(tiny_plan, cells=(lost, *tiny_plan.cells[1:]))
    slurm.submit(plan, study, PROFILE, SlurmCluster())
    fake.run_all()
    before = fake.calls()
    found = seen(plan, study)
    assert root(plan, found).state == "failed"
    assert "/nowhere/x.h5" in root(plan, found).message
    needing = [cell.id.name for cell in plan.cells if lost.id in cell.inputs.values()]
    assert needing
    assert [each.name for each in found.cells if each.message == f"needs {lost.id.name}"] == needing
    assert fake.calls() - before == {"squeue": 1}


def test_a_silent_slurm_leaves_what_the_folder_knows(tiny_plan: Plan, fake: FakeSlurm, queued: Path) -> None:
    fake.run(submissions(queued)[0].arrays[0].ids[0])
    fake.fails("squeue", "Unable to contact slurm controller")
    found = seen(tiny_plan, queued)
    assert states(found) == {"done": 2, "unknown": len(tiny_plan.cells) - 2}
    assert {each.message for each in found.cells} == {"", "was queued"}
    assert found.notes == (
        "Slurm does not answer (squeue: Unable to contact slurm controller); this is what the folder knows",
    )


def test_what_was_cancelled_is_missing_and_no_loss(tiny_plan: Plan, fake: FakeSlurm, queued: Path) -> None:
    cancel(tiny_plan, queued, SlurmCluster(), sleep=lambda _: None)
    before = fake.calls()
    found = seen(tiny_plan, queued)
    assert {(each.state, each.message) for each in found.cells} == {("missing", "cancelled")}
    assert fake.calls() - before == {"squeue": 1}


def test_a_submission_that_was_interrupted_is_told_with_its_repair(
    tiny_plan: Plan, fake: FakeSlurm, queued: Path
) -> None:
    files = SubmissionFolder(queued, submissions(queued)[0].name)
    files.write(dataclasses.replace(files.read(), state="queuing", arrays=()))
    found = seen(tiny_plan, queued)
    assert states(found) == {"missing": len(tiny_plan.cells)}
    assert found.notes[0].endswith(f"held jobs of it never run: espalier cancel {queued}")
