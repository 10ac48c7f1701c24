"""The doctor of a cluster, on a fake one."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launchers import _slurm_trial
from launchers._finding import Finding
from launchers._profile import Profile
from launchers._slurm_survey import survey_cluster
from tests.launchers.fake_slurm import FakeSlurm

Found = dict[str, Finding]
Survey = Callable[..., Found]


@pytest.fixture
def survey(fake: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Survey:
    """Return the findings by name; the test job does what it is told to, by default it runs."""
    monkeypatch.setattr(_slurm_trial, "LOOK_S", 0.01)
    monkeypatch.setattr(_slurm_trial, "LATE_S", 0.05)

    def look(fate: Callable[[str], Any] = fake.run, folder: Path | None = None, **asked: Any) -> Found:
        def told(line: str) -> None:
            if line.startswith("test job") and "pending" in line:
                fate(line.split()[2].rstrip(":"))

        profile = Profile.model_validate({"time_min": 20} | asked)
        found = list(survey_cluster(profile, folder or tmp_path, told))
        assert all("\n" not in f"{each.state}{each.repair}" for each in found)
        assert all(each.repair for each in found if each.is_bad)
        return {each.what: each for each in found}

    return look


def bad(found: Found) -> set[str]:
    return {each.what for each in found.values() if each.is_bad}


def test_a_profile_that_fits_is_well_and_leaves_nothing(survey: Survey, fake: FakeSlurm, tmp_path: Path) -> None:
    before = set(tmp_path.iterdir())
    found = survey(memory_gib=1, gpus=1)
    assert bad(found) == set(), found
    assert found["time limit"].state == "20 of 60 min"
    assert found["GPUs"].state == "1 of 2 on a node"
    assert found["partition"].state == "batch, the default, 2 nodes"
    assert found["folder"].state.startswith(f"{tmp_path} is seen and written from ")
    assert "GiB free" in found["scratch"].state
    assert set(tmp_path.iterdir()) == before
    calls = fake.calls()
    assert (calls["sinfo"], calls["scontrol"], calls["sbatch"], calls["sacctmgr"]) == (1, 2, 2, 0)
    assert {job["state"] for job in fake.jobs.values()} == {"COMPLETED"}


def test_a_folder_that_is_not_there_yet_is_not_there_afterwards(survey: Survey, tmp_path: Path) -> None:
    assert bad(survey(folder=tmp_path / "a" / "b")) == set()
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("asked", "what", "state", "repair"),
    [
        ({"time_min": 90}, "time limit", "90 asked, the default has 60 min", "time_min = 60"),
        ({"gpus": 4}, "GPUs", "4 asked (others), the default has 2 on a node", "gpus = 2"),
        ({"memory_gib": 64}, "memory", "64 asked, the default has 5.85 GiB on a node", "memory_gib = 5.85"),
        ({"cpus": 8}, "processors", "8 asked, the default has 2 on a node", "cpus = 2"),
        ({"partition": "nope"}, "partition", "nope is not there", "partition = one of batch"),
    ],
)
def test_what_a_partition_does_not_have_is_told_with_what_it_has(
    asked: dict[str, Any], what: str, state: str, repair: str, survey: Survey
) -> None:
    found = survey(**asked)
    assert what in bad(found)
    assert (found[what].state, found[what].repair) == (state, repair)


def test_what_only_one_kind_of_cell_asks_for_is_told_by_its_name(survey: Survey, fake: FakeSlurm) -> None:
    with (fake.root / "partitions").open("a") as file:
        file.write("long|up|infinite|OFF|1|2|6000|(null)\n")
    found = survey(kinds={"dense_hessian": {"time_min": 600}})
    assert found["time limit"].state == "600 asked (dense_hessian), the default has 60 min"
    assert found["time limit"].repair == "time_min = 60, or partition = long"


def test_a_refusal_of_sbatch_is_told_and_no_job_is_queued(survey: Survey, fake: FakeSlurm) -> None:
    found = survey(partition="nope")
    assert found["sbatch"].state.startswith("refused: invalid partition specified: nope")
    assert found["sbatch"].repair == "Change partition = nope of the profile; all there are: sinfo"
    assert "test job" not in found
    assert not fake.jobs


def test_limits_and_accounting_are_told(survey: Survey, fake: FakeSlurm) -> None:
    (fake.root / "configuration").write_text(
        "AccountingStorageType = accounting_storage/none\nAccountingStorageEnforce = limits\n"
    )
    (fake.root / "associations").write_text("lab||lab||40|\n")
    found = survey()
    assert found["accounting"].verdict == "optional"
    assert found["jobs at a time"].state.startswith("40 by account lab, 0 in the queue")
    (fake.root / "associations").write_text("lab||lab||0|\n")
    assert "jobs at a time" in bad(survey())


def test_a_preemption_that_ends_jobs_is_told(survey: Survey, fake: FakeSlurm) -> None:
    (fake.root / "configuration").write_text("PreemptType = preempt/partition_prio\n")
    (fake.root / "partitions").write_text("batch*|up|1:00:00|CANCEL|2|2|6000|gpu:2\n")
    assert survey()["preemption"].state == "CANCEL in batch: preempted jobs do not come back"
    (fake.root / "partitions").write_text("batch*|up|1:00:00|REQUEUE|2|2|6000|gpu:2\n")
    assert survey()["preemption"].verdict == "ok"


def test_a_silent_controller_is_one_finding(survey: Survey, fake: FakeSlurm) -> None:
    fake.fails("scontrol", "Unable to contact slurm controller")
    found = survey()
    assert bad(found) == {"controller"}
    assert "test job" not in found


def test_a_folder_that_no_node_sees_is_told(survey: Survey, fake: FakeSlurm, tmp_path: Path) -> None:
    before = set(tmp_path.iterdir())
    found = survey(lambda job: fake.set(job, state="FAILED"))
    assert bad(found) == {"test job"}
    assert found["test job"].state.endswith(f"its node does not see {tmp_path}, or may not write there")
    assert found["test job"].repair.startswith("--out on a file system that every node has")
    assert set(tmp_path.iterdir()) == before


def test_a_job_that_cannot_begin_is_told_by_its_last_line(survey: Survey, fake: FakeSlurm, tmp_path: Path) -> None:
    def fail(job: str) -> None:
        (jobs,) = tmp_path.glob(".espalier-doctor-*/jobs")
        (jobs / f"{job}_0_log.err").write_text("one\nModuleNotFoundError: No module named 'submitit'\n")
        fake.set(job, state="FAILED")

    assert "ModuleNotFoundError: No module named 'submitit'" in survey(fail)["test job"].state


def test_a_job_that_waits_for_too_long_is_taken_back(
    survey: Survey, fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_slurm_trial, "IN_QUEUE_S", 0.0)
    found = survey(lambda _: None)
    assert found["test job"].verdict == "optional"
    assert found["test job"].state.endswith("Priority")
    assert {job["state"] for job in fake.jobs.values()} == {"CANCELLED"}


def test_a_folder_that_cannot_be_written_here_is_told(survey: Survey, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert bad(survey(folder=tmp_path / "file" / "study")) == {"folder"}


def test_another_torch_on_the_node_is_told(survey: Survey, monkeypatch: pytest.MonkeyPatch) -> None:
    here = _slurm_trial.here()
    monkeypatch.setattr("launchers._slurm_survey.here", lambda: here | {"torch": "1.0", "espalier": "/elsewhere"})
    assert bad(survey()) == {"python there", "espalier there"}


def test_a_scratch_folder_that_is_not_there_is_told(survey: Survey) -> None:
    found = survey(scratch="/nowhere/scratch")
    assert bad(found) == {"scratch"}
    assert found["scratch"].state.endswith("No such file or directory")


def test_a_machine_without_slurm_is_told_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    found = {each.what: each for each in survey_cluster(Profile(time_min=5), tmp_path)}
    assert bad(found) == {"commands"}
    assert "controller" not in found


def test_of_several_partitions_one_that_is_up_and_has_enough_will_do(survey: Survey, fake: FakeSlurm) -> None:
    (fake.root / "configuration").write_text("PreemptType = preempt/partition_prio\n")
    (fake.root / "partitions").write_text(
        "batch*|up|1:00:00|REQUEUE|2|2|6000|gpu:2\nlong|down|infinite|CANCEL|1|64|6000|(null)\n"
    )
    found = survey(partition="batch,long", time_min=90, cpus=16)
    assert bad(found) == set(), found
    assert found["partition"].state == "batch, 2 nodes; long is down"
    assert found["time limit"].state == "90 of no limit"
    assert found["processors"].state == "16 of 64 on a node"
    assert found["preemption"].state == "CANCEL in long: preempted jobs do not come back"
    assert survey(partition="long")["partition"].state == "long is down"
    assert survey(partition="batch,gone")["partition"].state == "gone is not there"
    assert survey(partition="long,batch", cpus=65)["processors"].state == "65 asked, long,batch has 64 on a node"


@pytest.mark.parametrize("name", ["x\ntouch y", "a%jb", "a\\b"])
def test_a_folder_that_cannot_be_named_to_slurm_gets_no_test_job(
    name: str, survey: Survey, fake: FakeSlurm, tmp_path: Path
) -> None:
    found = survey(folder=tmp_path / name)
    assert bad(found) == {"folder"}
    assert found["folder"].state.endswith("in its name. Expected: printable characters without % and backslash")
    assert not fake.jobs
    assert not (tmp_path / name).exists()
