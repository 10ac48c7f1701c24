"""Slurm's signals, sent to this process: a job saves, leaves, queues itself again, and goes on where it was."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data.hdf5 import temporary_name
from launchers import _element, _slurm_job, _warning, inline, slurm
from launchers._events import Event, Said
from launchers._logs import cell_log
from launchers._profile import Profile
from launchers._slurm_cluster import SlurmCluster
from launchers._submission import SubmissionFolder, submissions
from launchers._warning import heeded, lead_s, least_s
from launchers._watch import Watch
from suite.attempt import Outcome, attempt
from suite.plan import Cell, Plan
from suite.progress import Standing
from suite.store import Store
from suite.training.checkpoint import Interrupted, Notice
from suite.training.stepper import Stepper
from tests.launchers.fake_slurm import FakeSlurm

PROFILE = Profile(time_min=20)


class Steps:
    """Counts steps of training in this process, and sends it a signal in one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.number, self.at, self.sent = 0, 0, signal.SIGUSR2
        step = Stepper.step

        def counted(stepper: Stepper, *arguments: Any) -> Any:
            self.number += 1
            if self.number == self.at:
                os.kill(os.getpid(), self.sent)
            return step(stepper, *arguments)

        monkeypatch.setattr(Stepper, "step", counted)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    return Steps(monkeypatch)


@pytest.fixture
def job(tiny_plan: Plan, fake: FakeSlurm, study: Path) -> str:
    """The job of the dense cell, queued."""
    slurm.submit(tiny_plan, study, PROFILE, SlurmCluster())
    return submissions(study)[0].arrays[0].ids[0]


def told(study: Path) -> list[dict[str, Any]]:
    submission = submissions(study)[0]
    return SubmissionFolder(study, submission.name).told(submission.arrays[0].number, 0)


def undisturbed(plan: Plan, run_with: Callable[..., Any], science: Callable[..., Any], folder: Path) -> dict[str, Any]:
    return science(run_with(inline, plan, folder).folder)


@pytest.mark.parametrize(("time_min", "seconds"), [(1, 12), (5, 60), (8, 90), (1440, 90)])
def test_a_job_is_warned_early_enough_and_not_too_early(time_min: int, seconds: int) -> None:
    assert lead_s(time_min) == seconds


@pytest.mark.parametrize(("time_min", "seconds"), [(1, 30), (2, 60), (3, 90), (4, 0), (20, 0)])
def test_a_job_with_a_short_limit_works_for_half_of_it(time_min: int, seconds: int) -> None:
    assert least_s(time_min) == seconds


def test_slurm_is_asked_for_the_warning(job: str, fake: FakeSlurm) -> None:
    assert fake.jobs[job]["flags"]["signal"] == "USR2@90"


@pytest.mark.parametrize("at", [1, 7])
def test_a_warned_job_saves_comes_back_and_goes_on(
    tiny_plan: Plan,
    fake: FakeSlurm,
    job: str,
    study: Path,
    steps: Steps,
    run_with: Callable[..., Any],
    science: Callable[..., Any],
    tmp_path: Path,
    at: int,
) -> None:
    steps.at = at
    assert fake.run(job) == f"SystemExit: saved training at step {at}; Slurm has queued the job again"
    dense = tiny_plan.cells[0]
    assert not Store(study).is_committed(dense.id)
    assert not list((study / "cells").glob("*.claim-*"))
    assert fake.jobs[job]["state"] == "PENDING"
    assert steps.number == at
    fake.run_all()
    assert [event["event"] for event in told(study)] == ["started", "left", "started", "ended"]
    assert [event.get("slurm_restart_count") for event in told(study)] == [None, None, "1", "1"]
    assert told(study)[-1]["status"] == "done"
    standing = Standing(dense.id.name, "dense", dense.title, "done", job=job)
    assert f"was warned in job {job}: saved training at step {at}" in cell_log(dense, standing, study, 9).tries[1]
    in_two_parts, steps.number, steps.at = steps.number, 0, 0
    assert science(study) == undisturbed(tiny_plan, run_with, science, tmp_path / "undisturbed")
    assert in_two_parts == steps.number
    assert not list((study / "cells").glob("*.checkpoint"))


def test_a_job_with_a_short_limit_that_is_warned_at_its_start_saves_and_goes_on(
    tiny_plan: Plan, fake: FakeSlurm, study: Path, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm.submit(tiny_plan, study, Profile(time_min=1), SlurmCluster())
    saved: list[int] = []
    monkeypatch.setattr("suite.training.checkpoint.Stage._write", lambda _, state: saved.append(state.step))
    steps.at = 1
    assert fake.run(submissions(study)[0].arrays[0].ids[0]) == ""
    assert saved == [1]
    assert [event["event"] for event in told(study)] == ["started", "ended"]


def test_a_cell_that_failed_is_not_computed_again_by_a_job_that_queued_itself_again(
    tiny_plan: Plan, fake: FakeSlurm, study: Path, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm.submit(tiny_plan, study, Profile(time_min=20, cells_per_job=3), SlurmCluster())
    dense, pruned = submissions(study)[0].arrays
    fake.run(dense.ids[0])
    fails, tried = pruned.elements[0][0], []

    def attempted(cell: Cell, *arguments: Any, **more: Any) -> Outcome:
        tried.append(cell.id.key)
        return Outcome(cell.id, "failed", "no") if cell.id.key == fails else attempt(cell, *arguments, **more)

    monkeypatch.setattr(_element, "attempt", attempted)
    steps.number, steps.at = 0, 5
    assert "queued the job again" in fake.run(pruned.ids[0])
    steps.at = 0
    assert fake.run(pruned.ids[0]).startswith("CellsFailed: 1 of 3 cells failed")
    first, second, third = pruned.elements[0]
    assert tried == [first, second, second, third]
    fake.set(pruned.ids[0], state="PENDING")  # somebody has it run once more
    fake.run(pruned.ids[0])
    assert tried[4:] == [first, second, third]


def test_a_driver_waits_for_a_job_that_has_queued_itself_again(
    tiny_plan: Plan, fake: FakeSlurm, job: str, study: Path, steps: Steps
) -> None:
    steps.at = 5
    fake.run(job)
    events: list[Event] = []
    watch = Watch(tiny_plan, study, SlurmCluster(), events.append, settle_s=0, sleep=lambda _: fake.run_all())
    outcomes = watch.wait()
    assert {outcome.status for outcome in outcomes} == {"done"}
    assert [outcome.attempts for outcome in outcomes] == [2] + [1] * (len(outcomes) - 1)
    assert not [event for event in events if isinstance(event, Said)]


def test_sigterm_saves_and_the_cell_goes_on(
    tiny_plan: Plan, fake: FakeSlurm, job: str, study: Path, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[int] = []
    monkeypatch.setattr("suite.training.checkpoint.Stage._write", lambda _, state: saved.append(state.step))
    steps.at, steps.sent = 5, signal.SIGTERM
    assert fake.run(job) == ""
    assert saved == [5]
    assert Store(study).is_committed(tiny_plan.cells[0].id)


def test_where_slurm_does_not_queue_it_again_the_job_waits_for_its_end(
    tiny_plan: Plan, fake: FakeSlurm, job: str, study: Path, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_element, "FAREWELL_S", 0.0)
    fake.fails("scontrol", "Requested operation is presently disabled")
    steps.at, first = 5, submissions(study)[0]
    assert fake.run(job) == "SystemExit: 1"
    assert [event["event"] for event in told(study)] == ["started", "left", "stayed"]
    assert "Requested operation is presently disabled; espalier retry goes on" in told(study)[-1]["message"]
    fake.works("scontrol")
    slurm.submit(tiny_plan, study, PROFILE, SlurmCluster())  # as does `retry`
    (second,) = [each for each in submissions(study) if each.name != first.name]
    fake.run(second.arrays[0].ids[0])
    assert Store(study).is_committed(tiny_plan.cells[0].id)
    assert steps.number == Store(study).load(tiny_plan.cells[0].id).cost["gradient_steps"]


def test_a_job_that_has_come_back_too_often_goes_on_until_it_is_ended(
    tiny_plan: Plan, fake: FakeSlurm, job: str, study: Path, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_slurm_job, "MAX_REQUEUES", 1)
    steps.at = 5
    assert "queued the job again" in fake.run(job)
    steps.at = 10
    assert fake.run(job) == ""
    assert Store(study).is_committed(tiny_plan.cells[0].id)


def test_signals_become_notices_and_handlers_come_back() -> None:
    before = [signal.getsignal(each) for each in (signal.SIGUSR2, signal.SIGTERM, signal.SIGALRM)]
    notice = Notice()
    with heeded(notice, True, lambda: False):
        os.kill(os.getpid(), signal.SIGTERM)
        assert (notice.save, notice.stop) == (True, False)
        os.kill(os.getpid(), signal.SIGUSR2)
        assert notice.stop
    assert [signal.getsignal(each) for each in (signal.SIGUSR2, signal.SIGTERM, signal.SIGALRM)] == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_warning_that_comes_early_is_heeded_later() -> None:
    notice = Notice()
    with heeded(notice, True, lambda: pytest.fail("it left"), earliest_s=0.2):
        os.kill(os.getpid(), signal.SIGUSR2)
        assert (notice.save, notice.stop) == (True, False)
        deadline_s = time.monotonic() + 60
        while not notice.stop and time.monotonic() < deadline_s:
            time.sleep(0.001)
        assert notice.stop


def test_what_is_no_training_is_left_once_it_has_saved_something(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_warning, "PATIENCE_S", 0.01)
    asked: list[int] = []

    def has_progress() -> bool:
        asked.append(1)
        return len(asked) == 3

    def work() -> None:
        with heeded(Notice(), True, has_progress):
            os.kill(os.getpid(), signal.SIGUSR2)
            deadline_s = time.monotonic() + 60
            while time.monotonic() < deadline_s:
                time.sleep(0.001)

    with pytest.raises(Interrupted):
        work()
    assert len(asked) == 3


def test_progress_is_a_committed_cell_or_something_saved(tiny_plan: Plan, fake: FakeSlurm, study: Path) -> None:
    slurm.submit(tiny_plan, study, PROFILE, SlurmCluster())
    files = SubmissionFolder(study, submissions(study)[0].name)
    element, cell = _element.Element(files, 0, 0), tiny_plan.cells[0]
    assert not element.has_progress()
    saved = Store(study).checkpoint_path(cell.id) / "probe-0" / "state.h5"
    saved.parent.mkdir(parents=True)
    saved.touch()
    element.begin(cell)
    assert not element.has_progress()  # it was there before
    for name in (".lock", temporary_name("state.h5"), "vectors-4-0123abcd.bin"):
        (saved.parent / name).touch()
        os.utime(saved.parent / name, (0, time.time() + 500))
    assert not element.has_progress()  # a save that was never finished
    os.utime(saved, (0, time.time() + 1000))
    assert element.has_progress()
    element.end(cell, "done")
    element.begin(tiny_plan.cells[1])
    assert element.has_progress()


@pytest.mark.parametrize(
    ("ending", "refused"),
    [
        ("exit 0", ""),
        ("kill -TERM $$", ""),
        ("exit 3", "exit code 3"),
        ("echo 'Access denied' >&2; exit 1", "Access denied"),
    ],
)
def test_a_scontrol_that_slurm_ends_with_the_job_has_queued_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, refused: str
) -> None:
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f"#!/bin/sh\n{ending}\n")
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID", raising=False)
    assert _warning.requeue() == refused
