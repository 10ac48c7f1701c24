"""kill -9 at any moment: the same command goes on where it stopped, and the results are those of a quiet night."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow
Stamps = Callable[[Path], dict[str, tuple[int, int]]]
LAUNCHERS = {"inline": (), "ray": ("--launcher", "ray", "--workers", "2")}


def put_stale_temporary(folder: Path) -> Path:
    """What a process leaves that is killed between writing and renaming; it names a process that is gone."""
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    path = folder / f".tmp-{socket.gethostname().replace('-', '_')}-{process.pid}-0123abcd-prune-x.h5"
    path.write_bytes(b"half")
    return path


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_killed_run_goes_on_where_it_stopped(
    launcher: str,
    drive: Callable[..., Any],
    gone: Callable[..., bool],
    stamps: Stamps,
    results: Callable[..., Any],
    undisturbed: dict[str, Any],
) -> None:
    for number in (2, 5):
        driver = drive(*LAUNCHERS[launcher])
        driver.wait_for_cells(number)
        below = driver.descendants()
        driver.process.kill()
        driver.process.wait()
        assert gone(below)
        assert launcher == "inline" or any("raylet" in name for name in below.values())
    before = stamps(driver.folder)
    assert number <= len(before) < len(undisturbed)
    stale = put_stale_temporary(driver.folder / "cells")
    driver = drive(*LAUNCHERS[launcher])
    code, out, err = driver.end()
    assert (code, err) == (0, "")
    assert f"{len(undisturbed) - len(before)} done, {len(before)} cached" in out
    after = stamps(driver.folder)
    assert {name: after[name] for name in before} == before
    assert results(driver.folder) == undisturbed
    assert not stale.exists()
    assert not list(driver.folder.rglob(".tmp-*"))


def test_a_killed_worker_costs_one_more_try(
    drive: Callable[..., Any], stamps: Stamps, results: Callable[..., Any], undisturbed: dict[str, Any]
) -> None:
    driver = drive(*LAUNCHERS["ray"])
    driver.wait_for_cells(2)
    before = stamps(driver.folder)
    deadline_s = time.monotonic() + 60
    at_work: list[int] = []
    while not at_work and time.monotonic() < deadline_s:
        at_work = [pid for pid, name in driver.descendants().items() if name.startswith("ray::tiny ")]
    os.kill(at_work[0], signal.SIGKILL)
    code, out, err = driver.end()
    assert (code, err) == (0, "")
    assert ", try 2 tiny " in out
    after = stamps(driver.folder)
    assert {name: after[name] for name in before} == before
    assert results(driver.folder) == undisturbed
