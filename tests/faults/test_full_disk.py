"""A disk that fills up: one line, exit code 2, nothing half-written; with more space the same command goes on."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from data.hdf5 import verify_seal
from tests.data.official_archives import write_archive

pytestmark = pytest.mark.slow
Remount = Callable[[int], Path]


@pytest.fixture
def disk(place: Path) -> Iterator[Remount]:
    """A file system in memory, of any size in bytes."""
    folder = place / "disk"
    folder.mkdir()

    def mount(size_bytes: int) -> Path:
        remount = "remount," if os.path.ismount(folder) else ""
        command = ["mount", "-t", "tmpfs", "-o", f"{remount}size={size_bytes}", "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert not (done.returncode and remount), done.stderr
        if done.returncode:
            pytest.skip(f"cannot mount a small file system: {done.stderr.strip()}")
        return folder

    yield mount
    if os.path.ismount(folder):
        subprocess.run(["umount", str(folder)], check=True)


def assert_one_line(answer: tuple[int, str, str], folder: Path) -> None:
    code, out, err = answer
    assert code == 2, (out, err)
    (line,) = err.splitlines()
    assert line.startswith("espalier: ")
    assert str(folder) in line or "the disk: " in line
    assert "No space left on device" in line
    assert "what is committed stays" in line


@pytest.mark.parametrize(
    ("launcher", "at_bytes"),
    [("inline", 8_192), ("inline", 150_000), ("ray", 150_000)],
)
def test_a_full_disk_stops_the_run_and_spoils_nothing(
    launcher: str,
    at_bytes: int,
    disk: Remount,
    drive: Callable[..., Any],
    results: Callable[..., Any],
    undisturbed: dict[str, Any],
) -> None:
    folder = disk(at_bytes)
    options = ("--launcher", launcher, "--workers", "2")
    assert_one_line(drive(*options, out=folder).end(), folder)
    before = {path: path.stat().st_mtime_ns for path in folder.glob("cells/*.h5")}
    assert len(before) < len(undisturbed)
    assert bool(before) == (at_bytes > 10_000)  # the smallest disk does not even hold the plan
    for path in before:
        verify_seal(path)
    assert not list(folder.rglob(".tmp-*"))
    disk(100 * 2**20)
    code, _, err = drive(out=folder).end()  # here the other launcher goes on
    assert (code, err) == (0, "")
    assert results(folder) == undisturbed
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_disk_too_full_for_new_results_keeps_the_old_ones(
    disk: Remount, drive: Callable[..., Any], undisturbed: dict[str, Any]
) -> None:
    folder = disk(100 * 2**20)
    assert drive(out=folder).end()[0] == 0
    good = (folder / "results.h5").read_bytes()
    state = os.statvfs(folder)
    used_bytes = (state.f_blocks - state.f_bfree) * state.f_frsize
    disk(used_bytes + len(good) // 2)
    assert_one_line(drive(out=folder).end(), folder)
    assert (folder / "results.h5").read_bytes() == good
    assert len(list(folder.glob("cells/*.h5"))) == len(undisturbed)
    assert not list(folder.rglob(".tmp-*"))


@pytest.mark.parametrize("at_bytes", [500_000, 1_500_000])
def test_a_disk_too_full_for_a_data_set_keeps_what_is_decoded(
    at_bytes: int, disk: Remount, start: Callable[..., Any], tmp_path: Path
) -> None:
    archive = write_archive("cifar100", tmp_path)  # 400 images: 1.2 MB as blocks, and room to write the file beside
    folder = disk(at_bytes)
    take = ("data", "prepare", "cifar100", "--from", archive, "--allow-other", "--out", folder / "c.h5")
    assert_one_line(start(tmp_path, *take).end(), folder)
    assert not (folder / "c.h5").exists()
    assert not list(folder.rglob(".tmp-*"))
    num_blocks = len(list((folder / "c.h5.partial").iterdir()))
    assert num_blocks == (1 if at_bytes < 10**6 else 2)
    disk(100 * 2**20)
    code, out, err = start(tmp_path, *take).end()
    assert (code, err) == (0, "")
    assert "images were decoded before" in out
    assert [path.name for path in folder.iterdir()] == ["c.h5"]
    verify_seal(folder / "c.h5")
