"""Folders that may be read and not written: one line, exit code 2, nothing written."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def unprivileged(place: Path) -> list[str]:
    """What to put before a command so that permissions bind it; root needs it, others nothing."""
    prefix = ["setpriv", "--bounding-set", "-dac_override", "--inh-caps", "-dac_override"] if os.geteuid() == 0 else []
    folder = place / "locked"
    folder.mkdir(mode=0o555)
    command = [*prefix, sys.executable, "-c", f"import os; print(os.access({str(folder)!r}, os.W_OK))"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True).stdout
    except FileNotFoundError:
        answer = "no setpriv"
    if answer != "False\n":
        pytest.skip(f"cannot give up the right to write everywhere ({answer.strip()})")
    return prefix


@pytest.mark.parametrize("locked", ["out", "cells", "logs"])
def test_a_folder_that_may_not_be_written(
    locked: str, unprivileged: list[str], drive: Callable[..., Any], place: Path
) -> None:
    out = place / "out"
    folders = {"out": out, "cells": out / "cells", "logs": out / "logs"}
    for folder in folders.values():
        folder.mkdir()
    folders[locked].chmod(0o555)
    code, stdout, err = drive(out=out, prefix=unprivileged).end()
    assert code == 2, (stdout, err)
    assert err == (
        f"espalier: {folders[locked]} cannot be written: no write permission. Give a folder of your own with --out "
        "DIR.\n"
    )
    assert not [path for path in out.rglob("*") if path.is_file()]


def test_a_folder_that_cannot_be_made(unprivileged: list[str], drive: Callable[..., Any], place: Path) -> None:
    code, stdout, err = drive(out=place / "locked" / "new" / "study", prefix=unprivileged).end()
    assert code == 2, (stdout, err)
    assert err == (
        f"espalier: {place / 'locked' / 'new' / 'study'} cannot be written: Permission denied. Give a folder of your "
        "own with --out DIR.\n"
    )
    assert not list((place / "locked").iterdir())
