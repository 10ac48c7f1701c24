from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from launchers import slurm
from launchers._events import Event, Said
from launchers._job_states import JobState
from launchers._profile import Profile
from launchers._slurm_cluster import SlurmCluster
from launchers._stuck import Stuck, reasons_for_ever
from launchers._submission import submissions
from launchers._watch import Watch
from suite.plan import Plan
from tests.launchers.fake_slurm import FakeSlurm

PROFILE = Profile(time_min=20, cells_per_job=2)


def waited(plan: Plan, folder: Path, fate: Callable[[int], None], looks: int = 6) -> list[str]:
    """What a driver says until it has ended, or has looked that often."""
    events: list[Event] = []
    numbers = iter(range(looks))
    watch = Watch(plan, folder, SlurmCluster(), events.append, settle_s=0, lag_s=0, sleep=lambda _: fate(next(numbers)))
    with suppress(StopIteration):
        watch.wait()
    return [event.text for event in events if isinstance(event, Said)]


@pytest.mark.parametrize("reason", ["JobHeldAdmin", "BadConstraints", "PartitionConfig", "PartitionNodeLimit"])
def test_a_driver_that_waits_for_ever_says_why_once(reason: str, tiny_plan: Plan, fake: FakeSlurm, study: Path) -> None:
    slurm.submit(tiny_plan, study, PROFILE, SlurmCluster())
    (first,) = submissions(study)[0].arrays[0].ids  # the others wait for it
    fake.set(first, why=reason)
    (said,) = waited(tiny_plan, study, lambda _: None)
    assert said.startswith(f"nothing that is left starts by itself; jobs wait: 1 for {reason}. ")
    assert f"scontrol show job {first}, " in said
    assert said.endswith(f": espalier cancel {study}")


def test_what_gets_on_after_all_is_waited_for(tiny_plan: Plan, fake: FakeSlurm, study: Path) -> None:
    slurm.submit(tiny_plan, study, PROFILE, SlurmCluster())
    (first,) = submissions(study)[0].arrays[0].ids
    fake.set(first, why="JobHeldAdmin")

    def fate(look: int) -> None:
        if look == 2:
            fake.set(first, why="Priority")
        elif look > 2:
            fake.run_all()

    assert len(waited(tiny_plan, study, fate)) == 1
    assert all(each["state"] == "COMPLETED" for each in fake.jobs.values())


@pytest.mark.parametrize(
    "other",
    [
        JobState("RUNNING"),
        JobState("PENDING", "Priority"),
        JobState("PENDING", "QOSMaxJobsPerUserLimit"),
        JobState("COMPLETED"),
        None,  # lost, or waiting for a driver that queues it again
    ],
)
def test_one_job_that_may_get_on_by_itself_is_enough(other: JobState | None) -> None:
    held = JobState("PENDING", "JobHeldUser")
    assert reasons_for_ever({"1": held, "2": other}) == {}
    assert reasons_for_ever({"1": held, "2": JobState("PENDING", "Dependency"), "3": held}) == {"JobHeldUser": 2}
    assert reasons_for_ever({"2": JobState("PENDING", "Dependency")}) == {}
    assert reasons_for_ever({}) == {}


def test_a_job_that_is_held_for_a_moment_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0
    monkeypatch.setattr("launchers._stuck.time.monotonic", lambda: now_s)
    events: list[Event] = []
    stuck = Stuck(Path("/study"), events.append, settle_s=15)
    held, free = {"1": JobState("PENDING", "JobHeldUser")}, {"1": JobState("PENDING", "Priority")}
    for now_s, jobs in ((0.0, held), (10.0, free), (20.0, held), (34.0, held)):  # noqa: B007  the clock reads it
        stuck.look(jobs)
        assert events == []
    now_s = 35.0
    stuck.look(held)
    stuck.look(held)
    assert len(events) == 1
    stuck.look({"1": JobState("PENDING", "JobHeldAdmin")})
    assert len(events) == 2
