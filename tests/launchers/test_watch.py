"""A driver that waits while accounting does not answer."""

from collections.abc import Callable
from pathlib import Path

import pytest

from launchers import slurm
from launchers._events import Event, Finished, Said
from launchers._profile import Profile
from launchers._slurm_cluster import SlurmCluster
from launchers._submission import submissions
from launchers._watch import Watch
from suite.attempt import Outcome
from suite.plan import Plan
from tests.launchers.fake_slurm import FakeSlurm

PROFILE = Profile(time_min=20, memory_gib=0.5, cells_per_job=2)
DOWN = "sacct: error: Problem talking to the database: Connection refused"


@pytest.fixture
def lost(tiny_plan: Plan, fake: FakeSlurm, study: Path) -> str:
    """A study whose first job has reached its time limit; return that job."""
    slurm.submit(tiny_plan, study, PROFILE, SlurmCluster())
    job = submissions(study)[0].arrays[0].ids[0]
    fake.set(job, state="TIMEOUT")
    return job


def waited(
    plan: Plan, folder: Path, fate: Callable[[int], None], lag_s: float = 0, looks: int = 12
) -> tuple[list[Outcome], list[str]]:
    events: list[Event] = []
    numbers = iter(range(looks))
    watch = Watch(
        plan, folder, SlurmCluster(), events.append, settle_s=0, lag_s=lag_s, sleep=lambda _: fate(next(numbers))
    )
    return watch.wait(), [event.text for event in events if isinstance(event, Said)]


def test_a_silent_accounting_is_waited_for_and_told_once(
    tiny_plan: Plan, fake: FakeSlurm, study: Path, lost: str
) -> None:
    fake.fails("sacct", DOWN)
    outcomes, said = waited(tiny_plan, study, lambda look: fake.works("sacct") if look == 5 else None)
    assert "reached its time limit" in outcomes[0].message
    assert len(said) == 2
    assert said[0].startswith(f"accounting does not answer (sacct: {DOWN})")
    assert said[1] == "accounting answers again"
    assert fake.calls()["sacct"] >= 7


def test_it_is_waited_for_as_long_as_it_takes(tiny_plan: Plan, fake: FakeSlurm, study: Path, lost: str) -> None:
    fake.fails("sacct", DOWN)
    with pytest.raises(StopIteration):
        waited(tiny_plan, study, lambda _: None, looks=30)
    assert not list((study / "logs").iterdir())


def test_other_cells_go_on_meanwhile(tiny_plan: Plan, fake: FakeSlurm, study: Path) -> None:
    slurm.submit(tiny_plan, study, Profile(time_min=20), SlurmCluster())
    *_, last = fake.jobs
    fake.set(last, state="NODE_FAIL")
    fake.fails("sacct", DOWN)
    fates = iter([fake.run_all, lambda: None, lambda: fake.works("sacct")])
    events: list[Event] = []
    watch = Watch(tiny_plan, study, SlurmCluster(), events.append, settle_s=0, sleep=lambda _: next(fates)())
    watch.wait()
    finished = [event.outcome.status for event in events if isinstance(event, Finished)]
    assert finished == ["done"] * (len(tiny_plan.cells) - 1) + ["failed"]
    assert events.index(Said("accounting answers again")) == len(events) - 2  # all but the lost one had ended


@pytest.mark.parametrize("state", ["RUNNING", "PENDING"])
def test_accounting_that_has_not_heard_of_the_end_yet_is_asked_again(
    state: str, tiny_plan: Plan, fake: FakeSlurm, study: Path, lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    standing = SlurmCluster.standing
    monkeypatch.setattr(SlurmCluster, "standing", lambda self, names: standing(self, names) | gone)
    gone = {}
    fake.set(lost, state=state)
    from launchers._job_states import JobState

    gone[lost] = JobState("TIMEOUT")  # squeue knows, accounting not yet
    outcomes, _ = waited(
        tiny_plan, study, lambda look: fake.set(lost, state="TIMEOUT") if look == 3 else None, lag_s=1000
    )
    assert "reached its time limit" in outcomes[0].message


def test_a_job_that_accounting_never_heard_of_is_given_up_after_a_while(
    tiny_plan: Plan, fake: FakeSlurm, study: Path, lost: str
) -> None:
    (fake.root / "jobs.json").write_text("{}")
    outcomes, _ = waited(tiny_plan, study, lambda _: None)
    assert "is gone and accounting does not know why" in outcomes[0].message


def test_a_cluster_without_accounting_is_not_waited_for(
    tiny_plan: Plan, fake: FakeSlurm, study: Path, lost: str
) -> None:
    fake.fails("sacct", "Slurm accounting storage is disabled")
    outcomes, said = waited(tiny_plan, study, lambda _: None)
    assert outcomes[0].status == "failed"
    assert said[0].startswith("there is no accounting")
