"""Elements that are cancelled, requeued, preempted, warned, too slow, or lose their node: the study ends well."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launchers._profile import Profile
from launchers._submission import elements_of, submissions
from tests.slurm.studies import ONE_SEED, PACKED, SLOW, Drive, needing, plan_of, slow_cells, wait_until

pytest.importorskip("submitit")
pytestmark = pytest.mark.slurm

Reference = Callable[..., dict[str, Any]]
Science = Callable[[Path], dict[str, Any]]
Stamps = Callable[[Path], dict[str, tuple[int, int]]]


def test_a_cancelled_element_is_named_and_a_requeued_one_comes_back(
    cluster: Any,
    study: Path,
    out: Path,
    espalier: Callable[..., Any],
    reference: Reference,
    science: Science,
    stamps: Stamps,
) -> None:
    plan = plan_of(study, SLOW)
    lost, again = slow_cells(plan)
    drive = Drive(plan, out)
    for cell in (lost, again):
        drive.wait_until_at_work(cell)
    before, job = stamps(out), drive.job_of(lost)
    cluster.cancel(job)
    cluster.requeue(drive.job_of(again))
    outcomes = drive.outcomes()
    assert len(before) == 2  # the quick dense cells of both elements
    assert outcomes.pop(lost.id.key).message.startswith(f"its job {job} was cancelled on n")
    for cell in needing(plan, lost):
        needs = outcomes.pop(cell.id.key)
        assert (needs.status, needs.message) == ("upstream_failed", f"needs {lost.id.name}")
    assert {outcome.status for outcome in outcomes.values()} == {"done"}
    assert outcomes[again.id.key].attempts == 2
    committed = stamps(out)
    assert (len(committed), before.items() <= committed.items()) == (7, True)
    wait_until(lambda: not cluster.queue(), "jobs stay in the queue")

    assert espalier("retry", out).out.startswith("study tiny-study: 3 of ")
    outcomes = Drive(plan, out).outcomes()
    assert {outcome.status for outcome in outcomes.values()} == {"done", "cached"}
    assert committed.items() <= stamps(out).items()
    assert science(out) == reference(SLOW)


def test_a_study_outlives_a_node(
    cluster: Any, study: Path, out: Path, reference: Reference, science: Science, stamps: Stamps
) -> None:
    plan = plan_of(study, ONE_SEED)
    (slow,) = slow_cells(plan)
    elsewhere = cluster.submit("sleep 600", "--nodelist=n1", "--exclusive")
    cluster.wait_for(elsewhere, "RUNNING")
    drive = Drive(plan, out)
    drive.wait_until_at_work(slow)
    before = stamps(out)
    cluster.cancel(elsewhere)
    cluster.kill(2)
    outcomes = drive.outcomes()
    assert {outcome.status for outcome in outcomes.values()} == {"done"}
    assert (outcomes[slow.id.key].attempts, outcomes[slow.id.key].host) == (2, "n1")
    assert (len(before), before.items() <= stamps(out).items()) == (1, True)
    assert science(out).items() <= reference(SLOW).items()


def test_a_preempted_element_comes_back(
    cluster: Any, study: Path, out: Path, reference: Reference, science: Science, stamps: Stamps
) -> None:
    plan = plan_of(study, ONE_SEED)
    (slow,) = slow_cells(plan)
    drive = Drive(plan, out)
    drive.wait_until_at_work(slow)
    before = stamps(out)
    urgent = cluster.submit("true", "--partition=urgent", "--nodes=2", "--exclusive")
    outcomes = drive.outcomes()
    assert cluster.wait_for(urgent, "COMPLETED") == ["COMPLETED"]
    assert {outcome.status for outcome in outcomes.values()} == {"done"}
    assert outcomes[slow.id.key].attempts == 2
    told = drive.told(slow)  # Slurm warns it, so that nothing is lost
    assert [event["event"] for event in told] == ["started", "left", "started", "ended"]
    assert told[1]["message"].startswith("saved training at step ")
    assert (len(before), before.items() <= stamps(out).items()) == (1, True)
    assert science(out).items() <= reference(SLOW).items()


def test_a_warned_element_saves_and_comes_back(
    cluster: Any, study: Path, out: Path, reference: Reference, science: Science, stamps: Stamps
) -> None:
    plan = plan_of(study, ONE_SEED)
    (slow,) = slow_cells(plan)
    drive = Drive(plan, out)
    drive.wait_until_at_work(slow)
    before = stamps(out)
    cluster.warn(drive.job_of(slow))
    outcomes = drive.outcomes()
    assert {outcome.status for outcome in outcomes.values()} == {"done"}
    told = drive.told(slow)
    assert [event["event"] for event in told] == ["started", "left", "started", "ended"]
    assert [event.get("slurm_restart_count") for event in told] == [None, None, "1", "1"]
    assert told[1]["message"].startswith("saved training at step ")
    assert (len(before), before.items() <= stamps(out).items()) == (1, True)
    assert science(out).items() <= reference(SLOW).items()
    assert not list((out / "cells").glob("*.checkpoint"))


@pytest.mark.slow
def test_an_element_that_reaches_its_time_limit_gets_more_time(
    cluster: Any, study: Path, out: Path, reference: Reference, science: Science
) -> None:
    # The job that comes first sleeps until Slurm ends it; all later ones find that it was there.
    script = out.with_suffix(".sh")
    script.write_text(f"mkdir {out}.begun && exec sleep 600\nexit 0\n")
    more = {"setup": (f"sh {script}",), "raise_factor": 20, "kinds": {"dense": {"time_min": 1}}}
    profile = Profile.model_validate({**PACKED.model_dump(exclude_none=True), **more})
    plan = plan_of(study, ONE_SEED)
    (slow,) = slow_cells(plan)
    drive = Drive(plan, out, profile)
    outcomes = drive.outcomes()
    assert {outcome.status for outcome in outcomes.values()} == {"done"}
    told = elements_of(submissions(out))[slow.id.key][0].again[slow.id.key]
    assert told == {"cause": "TIMEOUT", "number": 1, "raised": {"time_min": [1, 20]}}
    assert any("its job reached its time limit, time_min 20 instead of 1" in line for line in drive.said())
    assert science(out).items() <= reference(SLOW).items()
