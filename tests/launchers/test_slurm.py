import dataclasses
import errno
import os
import re
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from launchers import inline, slurm
from launchers._events import Event, Said, Started
from launchers._profile import Profile
from launchers._slurm_cluster import SlurmCluster, require_slurm
from launchers._submission import SubmissionFolder, submissions
from launchers._watch import Watch
from suite.errors import UserError
from suite.plan import Plan
from suite.store import Store
from tests.launchers.fake_slurm import FakeSlurm

PROFILE = Profile(time_min=20, memory_gib=0.5, cells_per_job=2)


def watched(plan: Plan, folder: Path, sleep: Callable[[float], None]) -> tuple[list[Any], list[Event]]:
    events: list[Event] = []
    watch = Watch(plan, folder, SlurmCluster(), events.append, settle_s=0, sleep=sleep)
    return watch.wait(), events


def never(pause_s: float) -> None:
    raise AssertionError("the plan should have been finished at the first look")


def broken(plan: Plan, number: int) -> Plan:
    """The same plan, but one cell looks for its data where there is none."""
    lost = dataclasses.replace(plan.cells[number], places={"data": "/nowhere/x.h5"})
    return dataclasses.replace(plan, cells=(*plan.cells[:number], lost, *plan.cells[number + 1 :]))


@pytest.mark.slow
def test_the_records_are_those_of_inline(
    small_plan: Plan, inline_run: Any, science: Callable[[Path], dict[str, Any]], fake: FakeSlurm, study: Path
) -> None:
    slurm.submit(small_plan, study, PROFILE, SlurmCluster())
    assert not list((study / "cells").iterdir())
    fake.run_all()
    outcomes, _ = watched(small_plan, study, never)
    assert {outcome.status for outcome in outcomes} <= {"done", "cached"}
    assert science(study) == science(inline_run.folder)


def test_one_sbatch_for_each_array_and_arrays_wait_for_their_inputs(
    tiny_plan: Plan, fake: FakeSlurm, study: Path
) -> None:
    slurm.submit(tiny_plan, study, PROFILE, SlurmCluster())
    arrays = submissions(study)[0].arrays
    assert fake.calls() == {"sbatch": len(arrays), "scontrol": 2, "sinfo": 1}
    assert [array.wave for array in arrays] == sorted(array.wave for array in arrays)
    first, later = fake.jobs[arrays[0].ids[0]]["flags"], fake.jobs[arrays[1].ids[0]]["flags"]
    assert "dependency" not in first
    assert later["dependency"] == f"afterany:{arrays[0].ids[0].partition('_')[0]}"
    assert later["kill-on-invalid-dep"] == "yes"
    assert (first["time"], first["mem"], first["cpus-per-task"]) == ("20", "512M", "1")
    assert "wckey" not in first


def test_two_submits_at_once_queue_each_cell_once(tiny_plan: Plan, fake: FakeSlurm, study: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        queued = [pool.submit(slurm.submit, tiny_plan, study, PROFILE, SlurmCluster()) for _ in range(2)]
    assert sorted(each.result() is None for each in queued) == [False, True]
    keys = [key for each in submissions(study) for key, _, _ in each.holders()]
    assert sorted(keys) == sorted(cell.id.key for cell in tiny_plan.cells)


def test_a_refusal_leaves_the_logs_of_failures(tiny_plan: Plan, fake: FakeSlurm, study: Path) -> None:
    log = Store(study).log_path(tiny_plan.cells[0].id)
    log.write_text("why it failed")
    fake.fails("sbatch", "sbatch: error: Batch job submission failed: Invalid qos specification")
    with pytest.raises(UserError, match="Invalid qos"):
        slurm.submit(tiny_plan, study, PROFILE, SlurmCluster())
    assert log.read_text() == "why it failed"
    fake.works("sbatch")
    slurm.submit(tiny_plan, study, PROFILE, SlurmCluster())
    assert not log.exists()


def test_no_job_runs_before_the_folder_says_what_it_holds(
    tiny_plan: Plan, fake: FakeSlurm, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = []
    monkeypatch.setattr(SlurmCluster, "release", lambda _, ids: held.append((ids, submissions(study)[0].state)))
    slurm.submit(tiny_plan, study, PROFILE, SlurmCluster())
    assert {job["why"] for job in fake.jobs.values()} == {"JobHeldUser"}
    assert held == [(sorted({job.partition("_")[0] for job in fake.jobs}, key=int), "releasing")]
    assert submissions(study)[0].state == "queued"


def test_a_job_gets_no_secret_and_its_folder_is_private(
    tiny_plan: Plan, fake: FakeSlurm, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MY_TOKEN", "SLURM_JOB_ID", "SBATCH_PARTITION", "ASKED_FOR"):
        monkeypatch.setenv(name, "7")
    done = slurm.submit(tiny_plan, study, PROFILE.model_copy(update={"environment": ("ASKED_FOR",)}), SlurmCluster())
    assert done is not None
    assert os.environ["MY_TOKEN"] == "7"
    variables = set(next(iter(fake.jobs.values()))["environment"])
    assert variables & {"MY_TOKEN", "SLURM_JOB_ID", "SBATCH_PARTITION", "ASKED_FOR", "PATH"} == {"ASKED_FOR", "PATH"}
    assert stat.S_IMODE(SubmissionFolder(study, done.name).jobs.stat().st_mode) == 0o700


def test_an_array_is_split_at_the_limit_of_the_cluster(small_plan: Plan, fake: FakeSlurm, study: Path) -> None:
    slurm.submit(small_plan, study, Profile(time_min=5), SlurmCluster())
    assert max(len(array.ids) for array in submissions(study)[0].arrays) == 5  # one less than MaxArraySize
    assert sorted(key for key, *_ in submissions(study)[0].holders()) == sorted(c.id.key for c in small_plan.cells)


def test_what_is_done_or_queued_is_not_queued_again(tiny_plan: Plan, fake: FakeSlurm, study: Path) -> None:
    slurm.submit(tiny_plan, study, PROFILE, SlurmCluster())
    before = fake.calls()["sbatch"]
    assert slurm.submit(tiny_plan, study, PROFILE, SlurmCluster()) is None
    fake.run_all()
    assert slurm.submit(tiny_plan, study, PROFILE, SlurmCluster()) is None
    assert fake.calls()["sbatch"] == before


def test_a_failed_input_ends_what_needs_it_at_once_and_by_name(tiny_plan: Plan, fake: FakeSlurm, study: Path) -> None:
    plan = broken(tiny_plan, 0)
    root = plan.cells[0].id
    slurm.submit(plan, study, PROFILE, SlurmCluster())
    assert "1 of 2 cells failed" in fake.run(submissions(study)[0].arrays[0].ids[0])
    needing = {cell.id for cell in plan.cells if root in cell.inputs.values()}
    assert needing
    watch = Watch(plan, study, SlurmCluster(), [].append, settle_s=0)
    watch.look()
    status = {outcome.cell: outcome for outcome in watch.schedule.outcomes.values()}
    assert status[root].status == "failed"
    assert "/nowhere/x.h5" in status[root].message
    assert {status[cell].status for cell in needing} == {"upstream_failed"}
    assert {status[cell].message for cell in needing} == {f"needs {root.name}"}
    fake.run_all()  # with no driver alive the jobs come to the same end
    told = [
        event
        for array in submissions(study)[0].arrays
        for index in range(len(array.ids))
        for event in SubmissionFolder(study, submissions(study)[0].name).told(array.number, index)
        if event["event"] == "ended" and event["status"] == "upstream_failed"
    ]
    assert {event["message"] for event in told} == {f"needs {root.name}"}
    assert {event["cell"] for event in told} == {cell.key for cell in needing}


def test_after_a_failure_the_same_command_queues_what_is_missing(tiny_plan: Plan, fake: FakeSlurm, study: Path) -> None:
    slurm.submit(broken(tiny_plan, 0), study, PROFILE, SlurmCluster())
    fake.run_all()
    slurm.submit(tiny_plan, study, PROFILE, SlurmCluster())
    fake.run_all()
    outcomes, _ = watched(tiny_plan, study, never)
    assert {outcome.status for outcome in outcomes} == {"cached"}
    assert not list((study / "logs").iterdir())


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("OUT_OF_MEMORY", r"ran out of memory; raise memory_gib of the profile \(now 0.5\) on n1"),
        ("TIMEOUT", r"reached its time limit; raise time_min of the profile \(now 20\)"),
        ("NODE_FAIL", "lost its node on n1"),
        ("CANCELLED", "was cancelled"),
        ("REVOKED_BY_THE_KING", "ended as REVOKED_BY_THE_KING"),
    ],
)
def test_a_lost_job_is_explained_by_accounting(
    state: str, words: str, tiny_plan: Plan, fake: FakeSlurm, study: Path
) -> None:
    slurm.submit(tiny_plan, study, PROFILE, SlurmCluster())
    root = submissions(study)[0].arrays[0].ids[0]
    fake.set(root, state=state)
    before = fake.calls()
    outcomes, _ = watched(tiny_plan, study, never)
    assert outcomes[0].status == "failed"
    assert re.search(words, outcomes[0].message), outcomes[0].message
    assert {outcome.status for outcome in outcomes[1:]} <= {"failed", "upstream_failed"}
    assert fake.calls() - before == {"squeue": 1, "sacct": 1}
    assert words.split(";")[0].split(" on ")[0] in Store(study).log_path(tiny_plan.cells[0].id).read_text()


def test_the_driver_waits_while_slurm_does_not_answer_and_says_so(
    tiny_plan: Plan, fake: FakeSlurm, study: Path
) -> None:
    slurm.submit(tiny_plan, study, PROFILE, SlurmCluster())
    fake.fails("squeue", "slurm_load_jobs error: Unable to contact slurm controller")
    pauses: list[float] = []

    def sleep(pause_s: float) -> None:
        pauses.append(pause_s)
        if len(pauses) == 3:
            fake.works("squeue")
            fake.run_all()

    outcomes, events = watched(tiny_plan, study, sleep)
    assert {outcome.status for outcome in outcomes} == {"done"}
    said = [event.text for event in events if isinstance(event, Said)]
    assert len(said) == 2
    assert "Unable to contact slurm controller" in said[0]
    assert pauses == sorted(pauses)


def test_a_running_cell_is_seen_to_start(tiny_plan: Plan, fake: FakeSlurm, study: Path) -> None:
    slurm.submit(tiny_plan, study, PROFILE, SlurmCluster())
    done = submissions(study)[0]
    folder, root = SubmissionFolder(study, done.name), done.arrays[0]
    folder.tell(root.number, 0, {"event": "started", "cell": root.elements[0][0]})
    with (folder.path / "events" / f"{root.number:03}-0.jsonl").open("a") as file:
        file.write('{"event": "en')  # torn by a kill
    fake.set(root.ids[0], state="RUNNING")
    events: list[Event] = []
    watch = Watch(tiny_plan, study, SlurmCluster(), events.append, settle_s=0)
    assert watch.look()
    assert not watch.look()
    assert events == [Started(tiny_plan.cells[0])]


def test_what_slurm_refuses_is_told_in_its_words_and_leaves_nothing_queued(
    tiny_plan: Plan, fake: FakeSlurm, study: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    kinds = {"prune": {"partition": "nope"}}  # the first array is taken, the second refused
    profile = Profile.model_validate({**PROFILE.model_dump(exclude_none=True), "kinds": kinds})
    with pytest.raises(UserError, match=r"^sbatch refused the jobs: .*Invalid partition name specified") as caught:
        slurm.submit(tiny_plan, study, profile, SlurmCluster())
    assert "\n" not in str(caught.value)
    assert fake.jobs
    assert {job["state"] for job in fake.jobs.values()} == {"CANCELLED"}
    assert submissions(study) == []
    assert capfd.readouterr().err == ""


def test_a_release_that_fails_takes_everything_back(tiny_plan: Plan, fake: FakeSlurm, study: Path) -> None:
    fake.fails("scontrol", "Unable to contact slurm controller")
    with pytest.raises(UserError, match=r"Unable to contact slurm controller. Nothing was queued"):
        slurm.submit(tiny_plan, study, PROFILE, SlurmCluster())
    assert {job["state"] for job in fake.jobs.values()} == {"CANCELLED"}


def test_an_array_is_taken_back_whose_files_cannot_be_written(
    tiny_plan: Plan, fake: FakeSlurm, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:  # after the sbatch of the first array
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("submitit.SlurmExecutor._write_job_id", full)
    with pytest.raises(OSError, match="No space left on device"):
        slurm.submit(tiny_plan, study, PROFILE, SlurmCluster())
    assert {job["state"] for job in fake.jobs.values()} == {"CANCELLED"}
    assert fake.calls()["sbatch"] == 1
    assert submissions(study) == []


def test_modules_setup_and_containers_reach_the_script(tiny_plan: Plan, fake: FakeSlurm, study: Path) -> None:
    site = {"modules": ("cuda",), "setup": ("ulimit -n 4096",), "container": {"image": "/a.sqsh", "mounts": "/a:/b"}}
    profile = Profile.model_validate({"time_min": 5, "python": "/opt/bin/python", **site})
    slurm.submit(tiny_plan, study, profile, SlurmCluster())
    text = next(iter(fake.jobs.values()))["text"]
    assert "\nmodule load cuda\nulimit -n 4096\n" in text
    assert "--container-image=/a.sqsh --container-mounts=/a:/b /opt/bin/python -u -m submitit" in text


def test_a_machine_without_slurm_is_told_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="sbatch is not on the PATH"):
        require_slurm()


def test_inline_finds_what_slurm_made(tiny_plan: Plan, fake: FakeSlurm, study: Path, run_with: Any) -> None:
    slurm.submit(tiny_plan, study, PROFILE, SlurmCluster())
    fake.run_all()
    assert {outcome.status for outcome in run_with(inline, tiny_plan, study).outcomes} == {"cached"}
