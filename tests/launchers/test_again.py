"""Lost cells that a waiting driver queues again, on a fake Slurm that decides how jobs end."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launchers import slurm
from launchers._again import INPUT, Again, Retries, that_can_begin
from launchers._events import Event, Said
from launchers._profile import Profile, Resources
from launchers._slurm_cluster import SlurmCluster
from launchers._slurm_facts import Partition
from launchers._standing import overview
from launchers._submission import QueuedArray, SubmissionFolder, submissions
from launchers._watch import Watch
from suite.attempt import Outcome
from suite.plan import Cell, Plan
from suite.store import CellId
from tests.launchers.fake_slurm import FakeSlurm

PROFILE = Profile(time_min=20, memory_gib=0.5, cells_per_job=2)
BATCH = Partition("batch", True, "up", 60, "OFF", 2, 2, 6.0, 2)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that lacks an input does not look for it again and again."""
    monkeypatch.setattr("launchers._element.LOOK_S", 0.0)


def an_array(**asked: Any) -> QueuedArray:
    return QueuedArray(0, 0, {"cpus": 1, "time_min": 20, **asked}, ("12",), (("a",),))


def decide(cause: str, number: int = 0, array: QueuedArray | None = None, **asked: Any) -> Again | str:
    retries = Retries(Profile(time_min=20, **asked), lambda _: BATCH, lambda _: None)
    return retries.decide(cause, array or an_array(memory_gib=1.0), number)


@pytest.mark.parametrize(
    ("cause", "raised"),
    [
        ("OUT_OF_MEMORY", {"memory_gib": (1.0, 2.0)}),
        ("TIMEOUT", {"time_min": (20, 40)}),
        ("NODE_FAIL", {}),
        ("PREEMPTED", {}),
        ("BOOT_FAIL", {}),
    ],
)
def test_only_what_was_too_little_is_raised(cause: str, raised: dict[str, tuple[float, float]]) -> None:
    found = decide(cause)
    assert isinstance(found, Again)
    assert (found.number, found.raised) == (1, raised)
    assert {name: getattr(found.resources, name) for name in raised} == {name: pair[1] for name, pair in raised.items()}


@pytest.mark.parametrize("cause", ["FAILED", "CANCELLED", "COMPLETED", "DEADLINE", "", "REVOKED_BY_THE_KING"])
def test_what_another_try_would_not_mend_is_not_tried_again(cause: str) -> None:
    assert decide(cause) == ""


def test_tries_are_bounded() -> None:
    assert decide("NODE_FAIL", 1) == "; max_retries = 1 of the profile was used up"
    assert isinstance(decide("NODE_FAIL", 1, max_retries=2), Again)
    assert decide("NODE_FAIL", max_retries=0) == ""


def test_no_more_is_asked_for_than_the_partition_has() -> None:
    found = decide("TIMEOUT", array=an_array(time_min=45))
    assert isinstance(found, Again)
    assert found.resources.time_min == 60
    assert decide("TIMEOUT", array=an_array(time_min=60)) == "; the default partition has no more"
    assert decide("OUT_OF_MEMORY", array=an_array(memory_gib=6.0)) == "; the default partition has no more"
    assert decide("OUT_OF_MEMORY", array=an_array()) == ""  # the site's default, which nobody here knows


def test_time_is_raised_to_whole_minutes() -> None:
    found = decide("TIMEOUT", array=an_array(time_min=5), raise_factor=1.5)
    assert isinstance(found, Again)
    assert (found.resources.time_min, type(found.resources.time_min)) == (8, int)


def test_a_cell_waits_for_inputs_that_are_nowhere() -> None:
    def cell(name: str, *inputs: str) -> Cell:
        return Cell(CellId("prune", name), {}, {each: CellId("prune", each) for each in inputs}, name, 1)

    again = {key: Again(INPUT, 0, Resources(cpus=1, time_min=1)) for key in "bcd"}
    cells = [cell("a"), cell("b", "a"), cell("c", "b"), cell("d", "x")]
    assert set(that_can_begin(again, cells, (), ())) == set()
    assert set(that_can_begin(again, cells, ("a",), ())) == {"b", "c"}
    assert set(that_can_begin(again, cells, ("a",), ("x",))) == {"b", "c", "d"}


def waited(
    plan: Plan, folder: Path, fate: Callable[[int], None], profile: Profile = PROFILE
) -> tuple[list[Outcome], list[str]]:
    """Wait as `run` does; between two looks the fake's jobs meet their fate. Return the outcomes and what was said."""
    events: list[Event] = []
    cluster = SlurmCluster()
    retries = slurm.retries_of(plan, folder, profile, cluster)
    looks = iter(range(12))
    watch = Watch(
        plan, folder, cluster, events.append, settle_s=0, lag_s=0, retries=retries, sleep=lambda _: fate(next(looks))
    )
    return watch.wait(), [event.text for event in events if isinstance(event, Said)]


def by_status(outcomes: list[Outcome]) -> dict[str, int]:
    found = [outcome.status for outcome in outcomes]
    return {status: found.count(status) for status in found}


def test_a_cell_that_ran_out_of_memory_gets_more_and_what_waits_for_it_follows(
    tiny_plan: Plan, fake: FakeSlurm, study: Path
) -> None:
    slurm.submit(tiny_plan, study, PROFILE, SlurmCluster())
    first = submissions(study)[0]
    root, *later = [job for array in first.arrays for job in array.ids]
    fake.set(root, state="OUT_OF_MEMORY")
    for job in later:  # Slurm lets them begin: they wait with afterany
        fake.run(job)
    outcomes, said = waited(tiny_plan, study, lambda _: fake.run_all())
    assert by_status(outcomes) == {"done": len(tiny_plan.cells)}
    dense = tiny_plan.cells[0].id
    assert any(f"{dense.name}" in line and "ran out of memory, memory_gib 1 instead of 0.5" in line for line in said), (
        said
    )
    again = submissions(study)[1]
    assert again.again[dense.key] == {"cause": "OUT_OF_MEMORY", "number": 1, "raised": {"memory_gib": [0.5, 1.0]}}
    assert fake.jobs[again.arrays[0].ids[0]]["flags"]["mem"] == "1024M"
    told = SubmissionFolder(study, first.name).told(0, 0)[-1]
    assert (told["event"], told["cause"], told["raised"]) == (
        "queued_again",
        "OUT_OF_MEMORY",
        {"memory_gib": [0.5, 1.0]},
    )


def test_status_tells_what_was_raised(tiny_plan: Plan, fake: FakeSlurm, study: Path) -> None:
    slurm.submit(tiny_plan, study, PROFILE, SlurmCluster())
    fake.set(submissions(study)[0].arrays[0].ids[0], state="TIMEOUT")
    with pytest.raises(StopIteration):  # nothing else happens
        waited(tiny_plan, study, lambda _: None)
    found = overview(tiny_plan, study, SlurmCluster()).cells[0]
    assert found.state == "queued"
    assert found.message == "Priority; queued again because its job reached its time limit, time_min 40 instead of 20"


def test_the_second_loss_is_the_end(tiny_plan: Plan, fake: FakeSlurm, study: Path) -> None:
    slurm.submit(tiny_plan, study, PROFILE, SlurmCluster())

    def fate(look: int) -> None:
        for job, each in fake.jobs.items():
            if each["why"] == "Priority" and each["state"] == "PENDING":
                fake.set(job, state="NODE_FAIL")

    outcomes, said = waited(tiny_plan, study, fate)
    assert outcomes[0].status == "failed"
    assert "lost its node" in outcomes[0].message
    assert outcomes[0].message.endswith("max_retries = 1 of the profile was used up")
    assert {outcome.status for outcome in outcomes[1:]} <= {"failed", "upstream_failed"}
    assert sum("queued again" in line for line in said) >= 1
    keys = [key for each in submissions(study) for key, *_ in each.holders()]
    assert keys.count(tiny_plan.cells[0].id.key) == 2


def test_a_python_error_is_never_tried_again(tiny_plan: Plan, fake: FakeSlurm, study: Path) -> None:
    lost = dataclasses.replace(tiny_plan.cells[0], places={"data": "/nowhere/x.h5"})
    plan = dataclasses.replace(tiny_plan, cells=(lost, *tiny_plan.cells[1:]))
    slurm.submit(plan, study, PROFILE, SlurmCluster())
    fake.run_all()
    outcomes, said = waited(plan, study, lambda _: None)
    assert by_status(outcomes)["failed"] == 1
    assert (len(submissions(study)), said) == (1, [])


def test_what_somebody_cancelled_is_left_alone(tiny_plan: Plan, fake: FakeSlurm, study: Path) -> None:
    slurm.submit(tiny_plan, study, PROFILE, SlurmCluster())
    for job in fake.jobs:
        fake.set(job, state="CANCELLED")
    outcomes, _ = waited(tiny_plan, study, lambda _: None)
    assert "done" not in by_status(outcomes)
    assert len(submissions(study)) == 1


def test_jobs_whose_submitter_was_killed_as_he_let_them_go_are_queued_again_as_well(
    tiny_plan: Plan, fake: FakeSlurm, study: Path
) -> None:
    done = slurm.submit(tiny_plan, study, PROFILE, SlurmCluster())
    assert done is not None
    SubmissionFolder(study, done.name).write(dataclasses.replace(done, state="releasing"))
    fake.set(done.arrays[0].ids[0], state="NODE_FAIL")
    outcomes, _ = waited(tiny_plan, study, lambda _: fake.run_all())
    assert by_status(outcomes) == {"done": len(tiny_plan.cells)}


def test_a_driver_that_is_started_anew_goes_on_counting(tiny_plan: Plan, fake: FakeSlurm, study: Path) -> None:
    slurm.submit(tiny_plan, study, PROFILE, SlurmCluster())
    fake.set(submissions(study)[0].arrays[0].ids[0], state="NODE_FAIL")
    with pytest.raises(StopIteration):
        waited(tiny_plan, study, lambda _: None)
    assert len(submissions(study)) == 2
    fake.set(submissions(study)[1].arrays[0].ids[0], state="NODE_FAIL")
    outcomes, _ = waited(tiny_plan, study, lambda _: None)
    assert outcomes[0].message.endswith("was used up")


def test_a_slurm_that_is_silent_when_cells_are_queued_again_is_waited_for(
    tiny_plan: Plan, fake: FakeSlurm, study: Path
) -> None:
    slurm.submit(tiny_plan, study, PROFILE, SlurmCluster())
    for job in fake.jobs:
        fake.set(job, state="NODE_FAIL")
    fake.fails("sbatch", "sbatch: error: Batch job submission failed: Unable to contact slurm controller")

    def fate(look: int) -> None:
        if look == 2:
            fake.works("sbatch")
        elif look > 2:
            fake.run_all()

    outcomes, said = waited(tiny_plan, study, fate)
    assert by_status(outcomes) == {"done": len(tiny_plan.cells)}
    assert any("Unable to contact slurm controller. Nothing was queued" in line for line in said)


def test_a_refusal_when_cells_are_queued_again_is_their_end(tiny_plan: Plan, fake: FakeSlurm, study: Path) -> None:
    slurm.submit(tiny_plan, study, PROFILE, SlurmCluster())
    for job in fake.jobs:
        fake.set(job, state="NODE_FAIL")
    fake.fails("sbatch", "sbatch: error: Batch job submission failed: Invalid account or account/partition combination")
    outcomes, _ = waited(tiny_plan, study, lambda _: None)
    assert "cannot be queued again: sbatch refused the jobs: " in outcomes[0].message
    assert by_status(outcomes).keys() <= {"failed", "upstream_failed"}


def test_a_job_above_its_memory_without_cgroups_is_known_by_its_output(
    tiny_plan: Plan, fake: FakeSlurm, study: Path
) -> None:
    slurm.submit(tiny_plan, study, PROFILE, SlurmCluster())
    first = submissions(study)[0]
    job = first.arrays[0].ids[0]
    text = "slurmstepd-n1: error: Exceeded job memory limit\nsrun: error: n1: task 0: Killed\n"
    (SubmissionFolder(study, first.name).jobs / f"{job}_0_log.err").write_text(text)
    fake.set(job, state="FAILED", code="9:0")
    outcomes, said = waited(tiny_plan, study, lambda _: fake.run_all())
    assert by_status(outcomes) == {"done": len(tiny_plan.cells)}
    assert any("memory_gib 1 instead of 0.5" in line for line in said)


def test_submissions_of_older_versions_are_read(tiny_plan: Plan, fake: FakeSlurm, study: Path) -> None:
    done = slurm.submit(tiny_plan, study, PROFILE, SlurmCluster())
    assert done is not None
    path = SubmissionFolder(study, done.name).path / "submission.json"
    values = json.loads(path.read_text())
    del values["again"]
    path.write_text(json.dumps(values))
    assert submissions(study)[0].again == {}
