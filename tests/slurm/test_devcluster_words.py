"""What slurm/devcluster says where it cannot do what it is told. Nothing is started here."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Devcluster = Callable[..., subprocess.CompletedProcess[str]]
NOWHERE = {"DEVCLUSTER_STATE": "/var/lib/devcluster/nowhere"}


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["up", "0"], "'0' nodes cannot be started. Expected: 1 to 9."),
        (["up", "two"], "'two' nodes cannot be started. Expected: 1 to 9."),
        (["kill", "1"], "The cluster is down. Expected: up. Run: devcluster up."),
    ],
)
def test_a_wrong_word_is_one_line(devcluster: Devcluster, words: list[str], line: str) -> None:
    done = devcluster(*words, **NOWHERE)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"devcluster: {line}\n")


@pytest.mark.parametrize(
    ("name", "value"), [("DEVCLUSTER_NET", "10.77"), ("DEVCLUSTER_NET", "10.77.0.1"), ("DEVCLUSTER_STATE", "here")]
)
def test_a_wrong_variable_is_one_line(devcluster: Devcluster, name: str, value: str) -> None:
    done = devcluster("status", **{name: value})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"devcluster: {name}={value} ")
    assert done.stderr.count("\n") == 1


def test_down_is_no_error_where_nothing_is_up(devcluster: Devcluster) -> None:
    assert devcluster("down", **NOWHERE).returncode == 0
    assert (devcluster("status", **NOWHERE).stdout, devcluster("status", **NOWHERE).returncode) == (
        "devcluster is down.\n",
        1,
    )


def test_without_a_word_it_explains_itself(devcluster: Devcluster) -> None:
    done = devcluster()
    assert done.returncode == 2
    assert done.stdout.startswith("A real Slurm of several hosts")
    assert "\n  devcluster up [NODES]" in done.stdout


def test_nobody_but_root_starts_hosts(devcluster: Devcluster, tmp_path: Path) -> None:
    (tmp_path / "id").write_text('#!/bin/sh\n[ "$1" = -un ] && echo ada || echo 1000\n')
    (tmp_path / "id").chmod(0o755)
    done = devcluster("up", **NOWHERE, PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert (done.returncode, done.stderr) == (2, "devcluster: User ada cannot start hosts. Expected: root.\n")
