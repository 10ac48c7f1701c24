"""Who does not answer is told once; the driver's behaviour meanwhile is tested in test_watch.py."""

import pytest

from launchers._events import Event, Said
from launchers._inquiry import Inquiry
from launchers._job_states import JobState
from launchers._slurm_cluster import SlurmCluster
from launchers._submission import Submission
from tests.launchers.fake_slurm import FakeSlurm

SUBMITTED = [Submission("s", "queued", {}, "host", "2026-01-01T00:00:00+00:00")]


def test_silence_and_its_end_are_told_once(fake: FakeSlurm) -> None:
    events: list[Event] = []
    inquiry = Inquiry(SlurmCluster(), events.append)
    fake.fails("squeue", "Unable to contact slurm controller")
    assert [inquiry.standing(SUBMITTED) for _ in range(3)] == [None] * 3
    fake.works("squeue")
    assert [inquiry.standing(SUBMITTED) for _ in range(3)] == [{}] * 3
    first, second = (event.text for event in events if isinstance(event, Said))
    assert first.startswith("Slurm does not answer (squeue: Unable to contact slurm controller)")
    assert second == "Slurm answers again"


def test_a_study_that_was_never_queued_asks_nobody(fake: FakeSlurm) -> None:
    assert Inquiry(SlurmCluster(), [].append).standing([]) == {}
    assert not fake.calls()


def test_without_accounting_what_squeue_said_of_ended_jobs_is_remembered(
    fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {"12": JobState("TIMEOUT", "TimeLimit", "n1"), "13": JobState("RUNNING")}
    monkeypatch.setattr(SlurmCluster, "standing", lambda *_: known)
    inquiry = Inquiry(SlurmCluster(), [].append)
    inquiry.standing(SUBMITTED)
    assert inquiry.has_accounting
    fake.fails("sacct", "Slurm accounting storage is disabled")
    assert inquiry.history(SUBMITTED) == {"12": JobState("TIMEOUT", "", "n1")}
    assert not inquiry.has_accounting
