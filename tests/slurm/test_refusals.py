"""What cannot be queued: one line, exit code 2, nothing in the queue."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from launchers._submission import submissions
from tests.slurm.machine import disk
from tests.slurm.studies import ONE_SEED, SLOW, WHOLE, wait_until

pytest.importorskip("submitit")
pytestmark = pytest.mark.slurm

BASE = "time_min = 20\nmemory_gib = 1\n"
REFUSED = {
    'partition = "nowhere"': "Invalid partition name specified",
    'account = "nobody"': "Invalid account or account/partition combination specified",
    'qos = "none"': "Invalid qos specification",
    '[kinds.limit]\npartition = "nowhere"': "Invalid partition name specified",  # when two arrays are in the queue
}


@pytest.mark.parametrize("line", REFUSED)
def test_what_slurm_refuses_is_one_line(
    line: str,
    cluster: Any,
    espalier: Callable[..., Any],
    study: Path,
    out: Path,
    settings: Callable[..., list[str]],
    working_folder: Path,
) -> None:
    (working_folder / "site.toml").write_text(f"{BASE}{line}\n")
    command = ("--profile", "./site.toml", "--out", out, *settings(WHOLE))
    answers = [espalier("submit", study, *command), espalier("run", study, "--launcher", "slurm", *command)]
    for answer in answers:
        assert answer.code == 2, answer
        (said,) = answer.err.splitlines()
        assert said.startswith("espalier: sbatch refused the jobs: ")
        assert REFUSED[line] in said
    assert cluster.queue() == []
    assert not out.exists()


def test_a_folder_that_no_node_sees_is_told_once(
    cluster: Any,
    espalier: Callable[..., Any],
    study: Path,
    tmp_path: Path,
    settings: Callable[..., list[str]],
    working_folder: Path,
) -> None:
    (working_folder / "site.toml").write_text(f"{BASE}cells_per_job = 2\n")
    out = tmp_path / "study"
    words = ("--launcher", "slurm", "--profile", "./site.toml", "--out", out, *settings(ONE_SEED))
    answer = espalier("run", study, *words)
    assert answer.code == 1
    first, others, last = answer.err.splitlines()
    assert " and 1 more: its job " in first
    assert " could not begin: n" in first
    assert first.endswith(" does not see the study's folder; give --out DIR that all nodes see")
    assert others.endswith(" and 2 more: need what failed")
    assert "some cells failed" in last
    assert cluster.queue() == []


@pytest.fixture
def disk_for() -> Iterator[Callable[[int], Path]]:
    """Return a new file system for so many files, in which no node takes part, in place of the one before."""
    with ExitStack() as last:

        def mount(num_files: int) -> Path:
            last.close()
            return last.enter_context(disk(f"nr_inodes={num_files}"))

        yield mount


def test_a_quota_that_ends_at_any_file_leaves_nothing_in_the_queue(
    cluster: Any,
    espalier: Callable[..., Any],
    study: Path,
    disk_for: Callable[[int], Path],
    settings: Callable[..., list[str]],
    working_folder: Path,
) -> None:
    (working_folder / "site.toml").write_text(f"{BASE}cells_per_job = 2\n")
    refused = 0
    for num_files in range(4, 60):
        folder = disk_for(num_files) / "study"
        answer = espalier("submit", study, "--profile", "./site.toml", "--out", folder, *settings(SLOW))
        if answer.code == 0:
            break
        refused += 1
        assert answer.code == 2, answer
        (said,) = answer.err.splitlines()
        assert "No space left on device" in said, said
        assert cluster.queue() == [], num_files
    assert 10 < refused < 50
    assert espalier("cancel", folder).code == 0


def test_a_disk_that_is_full_when_jobs_commit_ends_in_one_line(
    cluster: Any, espalier: Callable[..., Any], study: Path, settings: Callable[..., list[str]], working_folder: Path
) -> None:
    if cluster.small is None:
        pytest.skip("the cluster was up before, so that no small disk is shared")
    (working_folder / "site.toml").write_text(f"{BASE}cells_per_job = 2\n")
    out = cluster.small / "study"

    def fill() -> None:
        wait_until(lambda: any(each.state == "queued" for each in submissions(out)), "nothing is queued")
        with suppress(OSError), (out / "filler").open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass

    filler = threading.Thread(target=fill)
    filler.start()
    answer = espalier("run", study, "--launcher", "slurm", "--profile", "./site.toml", "--out", out, *settings(SLOW))
    filler.join()
    assert answer.code == 2, answer
    assert "No space left on device" in answer.err.splitlines()[-1]
    assert cluster.queue() == []
    assert not list((out / "cells").glob("*.h5"))
