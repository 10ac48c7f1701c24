import errno
import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from launchers import slurm
from launchers._cancel import ASK_AGAIN, MAX_REFUSALS, Cancelled, cancel
from launchers._profile import Profile
from launchers._slurm_cluster import SlurmCluster
from launchers._submission import SubmissionFolder, all_submissions, submissions
from suite.errors import UserError
from suite.plan import Plan
from suite.store import Store
from tests.launchers.fake_slurm import FakeSlurm

PROFILE = Profile(time_min=20, memory_gib=0.5, cells_per_job=2)


def cancelled(plan: Plan, folder: Path) -> tuple[Cancelled, list[int]]:
    left: list[int] = []
    return cancel(plan, folder, SlurmCluster(), left.append, sleep=lambda _: None), left


def someone_elses(fake: FakeSlurm) -> None:
    """Put another person's running job beside ours."""
    jobs = fake.jobs | {"7": {"name": "tiny-00000000", "state": "RUNNING", "why": "None", "flags": {}}}
    (fake.root / "jobs.json").write_text(json.dumps(jobs))


def test_all_jobs_of_the_study_end_and_no_others(tiny_plan: Plan, fake: FakeSlurm, study: Path) -> None:
    slurm.submit(tiny_plan, study, PROFILE, SlurmCluster())
    ours = set(fake.jobs)
    someone_elses(fake)
    fake.run(min(ours))
    committed = {path.name for path in (study / "cells").glob("*.h5")}
    done, left = cancelled(tiny_plan, study)
    assert set(done.jobs) == ours - {min(ours)}
    assert left == [len(done.jobs)]
    assert {fake.jobs[job]["state"] for job in done.jobs} == {"CANCELLED"}
    assert fake.jobs["7"]["state"] == "RUNNING"
    assert {path.name for path in (study / "cells").glob("*.h5")} == committed
    assert {cell.id for cell in done.cells} == {c.id for c in tiny_plan.cells if not Store(study).is_committed(c.id)}
    assert submissions(study)[0].state == "cancelled"


def test_a_second_time_there_is_nothing_to_do(tiny_plan: Plan, fake: FakeSlurm, study: Path) -> None:
    assert cancelled(tiny_plan, study)[0] == Cancelled((), ())
    assert not fake.calls()
    slurm.submit(tiny_plan, study, PROFILE, SlurmCluster())
    cancelled(tiny_plan, study)
    before = fake.calls()
    assert cancelled(tiny_plan, study)[0] == Cancelled((), ())
    assert fake.calls() - before == {"squeue": 1}


def test_after_a_cancel_the_same_command_queues_all_again(tiny_plan: Plan, fake: FakeSlurm, study: Path) -> None:
    slurm.submit(tiny_plan, study, PROFILE, SlurmCluster())
    cancelled(tiny_plan, study)
    again = slurm.submit(tiny_plan, study, PROFILE, SlurmCluster())
    assert again is not None
    assert {key for key, *_ in again.holders()} == {cell.id.key for cell in tiny_plan.cells}


def test_jobs_of_a_submission_that_was_killed_half_way_are_found_by_name(
    tiny_plan: Plan, fake: FakeSlurm, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise SystemExit  # nothing that follows is done: as if by SIGKILL

    monkeypatch.setattr("launchers.slurm._Submitting._withdraw", lambda *_: None)
    with pytest.raises(SystemExit):
        slurm.submit(tiny_plan, study, PROFILE, SlurmCluster(), killed)
    assert submissions(study)[0].state == "queuing"
    assert {job["why"] for job in fake.jobs.values()} == {"JobHeldUser"}
    done, _ = cancelled(tiny_plan, study)
    assert set(done.jobs) == set(fake.jobs) != set()
    assert tiny_plan.cells[0] in done.cells
    assert {job["state"] for job in fake.jobs.values()} == {"CANCELLED"}


def test_a_submission_under_way_stops_and_takes_back_what_it_queued(
    tiny_plan: Plan, fake: FakeSlurm, study: Path
) -> None:
    def cancel_after_the_first(so_far: int, total: int) -> None:
        assert so_far == 1 < total
        cancelled(tiny_plan, study)

    with pytest.raises(UserError, match=r"was cancelled meanwhile\. Nothing is left in the queue"):
        slurm.submit(tiny_plan, study, PROFILE, SlurmCluster(), cancel_after_the_first)
    assert fake.calls()["sbatch"] == 1
    assert {job["state"] for job in fake.jobs.values()} == {"CANCELLED"}
    assert all_submissions(study)[0].state == "withdrawn"


def test_what_a_failed_withdrawal_left_in_the_queue_is_cancelled(tiny_plan: Plan, fake: FakeSlurm, study: Path) -> None:
    for command in ("scontrol", "scancel"):
        fake.fails(command, "Unable to contact slurm controller")
    with pytest.raises(UserError):
        slurm.submit(tiny_plan, study, PROFILE, SlurmCluster())
    assert submissions(study) == []
    fake.works("scancel")
    done, _ = cancelled(tiny_plan, study)
    assert set(done.jobs) == set(fake.jobs)
    assert {job["state"] for job in fake.jobs.values()} == {"CANCELLED"}


@pytest.mark.parametrize(("command", "times"), [("squeue", 0), ("scancel", MAX_REFUSALS)])
def test_a_silent_slurm_ends_in_one_line(
    command: str, times: int, tiny_plan: Plan, fake: FakeSlurm, study: Path
) -> None:
    slurm.submit(tiny_plan, study, PROFILE, SlurmCluster())
    fake.fails(command, "slurm_load_jobs error:\nUnable to contact slurm controller")
    with pytest.raises(UserError, match=re.escape(f"{command}: slurm_load_jobs error: Unable")) as caught:
        cancelled(tiny_plan, study)
    assert "may be left in the queue; run the same command again" in str(caught.value)
    assert fake.calls()["scancel"] == times
    assert SubmissionFolder(study, submissions(study)[0].name).read().state == "queued"


@pytest.mark.parametrize("state", ["queued", "queuing"])
@pytest.mark.parametrize("number", [errno.EDQUOT, errno.EROFS, errno.EIO])
def test_a_folder_that_takes_no_more_files_keeps_no_job_in_the_queue(
    number: int, state: str, tiny_plan: Plan, fake: FakeSlurm, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm.submit(tiny_plan, study, PROFILE, SlurmCluster())
    (submitted,) = submissions(study)
    files = SubmissionFolder(study, submitted.name)
    files.write(replace(submitted, state=state, arrays=submitted.arrays if state == "queued" else ()))

    def full(path: Path, _: bytes) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr("launchers._submission.commit_bytes", full)
    done, _ = cancelled(tiny_plan, study)
    assert set(done.jobs) == set(fake.jobs)
    assert {job["state"] for job in fake.jobs.values()} == {"CANCELLED"}
    assert {cell.id for cell in done.cells} == {cell.id for cell in tiny_plan.cells}
    (note,) = done.notes
    assert note.startswith(f"{files.path} takes no more files ({os.strerror(number)}), so it is not written down")
    assert ("that still queues it" in note) == (state == "queuing")


@pytest.mark.parametrize("state", ["PENDING", "RUNNING"])
def test_a_job_that_queued_itself_again_after_scancel_is_cancelled_once_more(
    state: str, tiny_plan: Plan, fake: FakeSlurm, study: Path
) -> None:
    slurm.submit(tiny_plan, study, PROFILE, SlurmCluster())
    job, looks = min(fake.jobs), 0

    def sleep(_: float) -> None:
        nonlocal looks
        looks += 1
        if looks == 1:  # its own scontrol requeue came later
            fake.set(job, state=state, why="BeginTime")
        assert looks < 2 * ASK_AGAIN

    cancel(tiny_plan, study, SlurmCluster(), sleep=sleep)
    assert {job["state"] for job in fake.jobs.values()} == {"CANCELLED"}
    assert fake.calls()["scancel"] == 2


@pytest.mark.parametrize("content", [None, '"x"', "{", ""])
def test_jobs_are_taken_back_by_their_folder_s_name_where_submission_json_tells_nothing(
    content: str | None, tiny_plan: Plan, fake: FakeSlurm, study: Path
) -> None:
    first = slurm.submit(tiny_plan, study, PROFILE, SlurmCluster())
    assert first is not None
    path = SubmissionFolder(study, first.name).path / "submission.json"
    path.unlink() if content is None else path.write_text(content)
    done, _ = cancelled(tiny_plan, study)
    assert set(done.jobs) == set(fake.jobs)
    assert {job["state"] for job in fake.jobs.values()} == {"CANCELLED"}
    assert {cell.id for cell in done.cells} == {cell.id for cell in tiny_plan.cells}
    assert done.notes == (
        (f"{path} is not readable; its jobs are gone, remove {path.parent}",) if content else done.notes
    )
    assert bool(done.notes) == (content is not None)


def test_a_folder_beside_the_submissions_names_no_job(tiny_plan: Plan, fake: FakeSlurm, study: Path) -> None:
    slurm.submit(tiny_plan, study, PROFILE, SlurmCluster())
    jobs = fake.jobs | {"7": {"name": "notes", "state": "RUNNING", "why": "None", "flags": {}}}
    (fake.root / "jobs.json").write_text(json.dumps(jobs))
    for name in ("notes", "notes,x-00000000"):
        (study / "slurm" / name).mkdir()
    cancelled(tiny_plan, study)
    assert fake.jobs["7"]["state"] == "RUNNING"
