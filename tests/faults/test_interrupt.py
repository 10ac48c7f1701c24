"""Ctrl-C and SIGTERM: exit code 130, one line, committed cells stay, and nothing is left running."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data.hdf5 import verify_seal

RAY = ("--launcher", "ray", "--workers", "2")


@pytest.mark.parametrize(
    ("options", "number", "whole_group"),
    [
        ((), signal.SIGINT, False),
        pytest.param((), signal.SIGTERM, False, marks=pytest.mark.slow),
        pytest.param(RAY, signal.SIGINT, True, marks=pytest.mark.slow),  # as a terminal sends it: to everybody
        pytest.param(RAY, signal.SIGTERM, False, marks=pytest.mark.slow),
    ],
)
def test_an_interrupt_ends_in_one_line_and_leaves_nothing_running(
    options: tuple[str, ...],
    number: int,
    whole_group: bool,
    drive: Callable[..., Any],
    gone: Callable[..., bool],
) -> None:
    driver = drive(*options)
    driver.wait_for_cells(2)
    below = driver.descendants()
    (os.killpg if whole_group else os.kill)(driver.process.pid, number)
    code, out, err = driver.end()
    (line,) = err.splitlines()
    assert code == 130
    assert line.startswith("espalier: interrupted; what is committed stays. Go on with the same command: espalier run ")
    assert "Traceback" not in out
    assert gone(below)
    assert below or not options
    assert list(driver.temporary.glob("esp-*")) == []
    assert not (driver.home / ".ray").exists()
    cells = list((driver.folder / "cells").glob("*.h5"))  # beside claims, perhaps, of workers that were killed
    assert len(cells) >= 2
    for path in cells:
        verify_seal(path)


@pytest.mark.slow
def test_no_running_cluster_is_joined_and_no_token_is_left_at_home(
    drive: Callable[..., Any], place: Path, undisturbed: dict[str, Any], results: Callable[..., Any]
) -> None:
    driver = drive(*RAY, env={"RAY_ADDRESS": "127.0.0.1:1", "RAY_AUTH_MODE": "disabled"})
    code, out, err = driver.end()
    assert (code, err) == (0, ""), out
    assert results(driver.folder) == undisturbed
    assert list(driver.temporary.glob("esp-*")) == []
    assert not (driver.home / ".ray").exists()
    assert json.loads((driver.folder / "plan.json").read_text())["cells"]
