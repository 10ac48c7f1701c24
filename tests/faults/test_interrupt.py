"""Ctrl-C and SIGTERM: exit code 130, one line, committed cells stay, and nothing is left running."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch import nn

from data.hdf5 import verify_seal

SLOW = """
import time
from pathlib import Path

from torch import nn


class Slow(nn.Sequential):
    def forward(self, inputs):
        logits = super().forward(inputs)
        if logits.requires_grad:
            logits.register_hook(wait)
        return logits


def wait(gradient):
    if gradient.requires_grad:
        gradient.register_hook(lambda _: time.sleep(0.02))
        Path("begun").touch()


def build():
    return Slow(nn.Linear(64, 40), nn.Tanh(), nn.Linear(40, 10))
"""
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


@pytest.fixture
def own_network(place: Path) -> Path:
    """The folder of a user whose network takes its time for each product with the Hessian."""
    folder = place / "mine"
    folder.mkdir()
    (folder / "slow.py").write_text(SLOW)
    rng, draw = np.random.default_rng(0), torch.Generator().manual_seed(0)
    with h5py.File(folder / "mine.h5", "w") as file:
        file["train/inputs"] = rng.standard_normal((300, 64)).astype(np.float32)
        file["train/targets"] = np.arange(300) % 10
    space: dict[str, Any] = {}
    exec(SLOW, space)
    model: nn.Module = space["build"]()
    state = {name: torch.randn(value.shape, generator=draw) for name, value in model.state_dict().items()}
    torch.save(state, folder / "mine.pt")
    return folder


@pytest.mark.parametrize(
    ("command", "number", "checkpoint"),
    [
        ("limit", signal.SIGINT, ("--checkpoint", "saved")),
        pytest.param("spectrum", signal.SIGTERM, (), marks=pytest.mark.slow),
        pytest.param("limit", signal.SIGTERM, ("--checkpoint", "saved", "--workers", 2), marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_search_says_how_to_go_on(
    command: str,
    number: int,
    checkpoint: tuple[object, ...],
    own_network: Path,
    start: Callable[..., Any],
    gone: Callable[..., bool],
) -> None:
    words = [command, "--model", "slow:build", "--weights", "mine.pt", "--data", "mine.h5", "--tolerance", 0.01]
    words += ["--threads", 1, *checkpoint]
    search = start(own_network, *words)
    search.wait_until(lambda: any(own_network.rglob("state.h5")) if checkpoint else (own_network / "begun").exists())
    below = search.descendants()
    os.kill(search.process.pid, number)
    code, out, err = search.end()
    how = "nothing was saved; give --checkpoint DIR to be able to go on."
    if checkpoint:
        typed = " ".join(map(str, words))
        how = f"the runs that are saved in saved stay. Go on with the same command: espalier {typed}"
    assert code == 130
    assert err.splitlines()[-1] == f"espalier: interrupted; {how}"
    assert "Traceback" not in out + err
    assert gone(below)
    for path in own_network.rglob("state.h5"):
        verify_seal(path)
