"""A submission that Slurm refuses: one line with the repair, exit code 2, and no folder that was not there before."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data.hdf5 import commit_bytes
from launchers._slurm_call import SlurmFailed
from launchers._slurm_cluster import SlurmCluster
from launchers._submission import submissions
from tests.launchers.fake_slurm import FakeSlurm

Espalier = Callable[..., Any]
Refused = Callable[..., str]

PARTITION = "time_min = 20\npartition = 'nope'\n"
LINE = (
    "espalier: sbatch refused the jobs: Batch job submission failed: Invalid partition name specified. "
    "Change partition = nope of the profile; all there are: sinfo."
)


@pytest.fixture
def words(small_study: Path, working_folder: Path, settings: list[str]) -> Callable[..., list[object]]:
    """Return the words of a command that queues the small study with a profile of that text."""

    def make(command: str, text: str, out: str) -> list[object]:
        path = working_folder.parent / "site.toml"
        path.write_text(text)
        launcher = ["--launcher", "slurm"] if command == "run" else []
        return [command, small_study, *launcher, "--profile", path, "--out", out, *settings]

    return make


@pytest.mark.parametrize("command", ["submit", "run"])
@pytest.mark.parametrize("out", ["study", "deep/er/study"])
def test_a_refused_submission_leaves_no_folder(
    command: str, out: str, words: Callable[..., list[object]], fake: FakeSlurm, refused: Refused
) -> None:
    assert refused(*words(command, PARTITION, out)) == LINE
    assert not fake.jobs


def test_a_refusal_of_the_last_array_takes_the_first_ones_back(
    words: Callable[..., list[object]], fake: FakeSlurm, refused: Refused
) -> None:
    assert refused(*words("submit", "time_min = 20\n[kinds.spectrum]\npartition = 'nope'\n", "study")) == LINE
    assert fake.jobs
    assert {job["state"] for job in fake.jobs.values()} == {"CANCELLED"}


def test_a_plan_of_too_many_jobs_leaves_no_folder(
    words: Callable[..., list[object]], fake: FakeSlurm, refused: Refused
) -> None:
    (fake.root / "configuration").write_text("AccountingStorageEnforce = limits\n")
    (fake.root / "associations").write_text("lab||lab||1|\n")
    assert "are too many: account lab allows 1 in the queue" in refused(*words("submit", "time_min = 20\n", "study"))


@pytest.mark.parametrize("number", [1, 2, 4])
def test_a_disk_that_is_full_at_any_file_leaves_no_folder(
    number: int,
    words: Callable[..., list[object]],
    fake: FakeSlurm,
    refused: Refused,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written: list[Path] = []

    def full(path: Path, content: bytes) -> None:
        written.append(path)
        if len(written) >= number:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        commit_bytes(path, content)

    monkeypatch.setattr("launchers._submission.commit_bytes", full)
    line = refused(*words("submit", "time_min = 20\n", "deep/er/study"))
    assert f"{written[number - 1]}: No space left on device" in line
    assert {job["state"] for job in fake.jobs.values()} <= {"CANCELLED"}
    assert bool(fake.jobs) == (number > 2)


def test_a_folder_that_was_there_stays_as_it_was(
    words: Callable[..., list[object]], working_folder: Path, fake: FakeSlurm, espalier: Espalier
) -> None:
    assert espalier(*words("submit", "time_min = 20\n", "study")).code == 0
    fake.run_all()
    study = working_folder / "study"
    cell = min((study / "cells").glob("spectrum-*.h5"))
    cell.unlink()
    before = set(study.rglob("*"))
    answer = espalier(*words("submit", PARTITION, "study"))
    assert (answer.code, answer.err) == (2, f"{LINE}\n")
    assert set(study.rglob("*")) == before
    assert len(submissions(study)) == 1


def test_a_slurm_that_does_not_answer_is_told_before_anything_is_made(
    words: Callable[..., list[object]], fake: FakeSlurm, refused: Refused
) -> None:
    fake.fails("scontrol", "Could not establish a configuration source")
    line = refused(*words("submit", "time_min = 20\n", "study"))
    assert "does not answer (scontrol: Could not establish a configuration source)" in line
    assert "does SLURM_CONF name its configuration?" in line
    assert fake.calls() == {"scontrol": 1}


def test_a_folder_whose_jobs_may_be_left_stays(
    words: Callable[..., list[object]],
    working_folder: Path,
    fake: FakeSlurm,
    espalier: Espalier,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def silent(*_: object) -> None:
        raise SlurmFailed("scontrol: Unable to contact slurm controller")

    monkeypatch.setattr(SlurmCluster, "release", silent)
    fake.fails("scancel", "Unable to contact slurm controller")
    answer = espalier(*words("submit", "time_min = 20\n", "study"))
    assert answer.code == 2
    study = working_folder / "study"
    assert answer.err.endswith(f"Jobs may be left in the queue: espalier cancel {study}\n")
    fake.works("scancel")
    assert espalier("cancel", study).code == 0
    assert {job["state"] for job in fake.jobs.values()} == {"CANCELLED"}


@pytest.mark.parametrize("command", ["submit", "run"])
@pytest.mark.parametrize("out", ["x\ntouch PWNED\n#", "a%jb", "deep/a\\b", "a\x1b[31m", "a\tb"])
def test_a_folder_that_cannot_be_named_to_slurm_is_refused(
    command: str, out: str, words: Callable[..., list[object]], fake: FakeSlurm, refused: Refused
) -> None:
    line = refused(*words(command, "time_min = 20\n", out))
    assert line.startswith("espalier: the folder '/")
    assert line.endswith("printable characters without % and backslash. Give another folder with --out DIR.")
    assert fake.calls()["sbatch"] == 0


def test_other_folders_are_queued_as_they_are_called(
    words: Callable[..., list[object]], fake: FakeSlurm, espalier: Espalier
) -> None:
    assert espalier(*words("submit", "time_min = 20\n", "a b/\u00e4$x;y")).code == 0
    assert fake.run(min(fake.jobs)) == ""
