"""kill -9 in the middle of a search for limits on Ray's actors: the same command goes on from the runs it saved.

The network is a user's own module that counts its products with the Hessian in a file, and lets them wait at a gate. So
the kill comes in the middle of a run, however busy the machine, and how much was computed anew is known.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch
from torch import nn

from data.hdf5 import open_sealed

pytestmark = pytest.mark.slow
TWO_WORKERS = ("--workers", 2)
NETWORK = """
import time
from pathlib import Path

from torch import nn

HERE = Path(__file__).parent


class Tallied(nn.Module):
    \"\"\"Only a product differentiates a gradient: whenever one does, a byte is left in the tally.\"\"\"

    def __init__(self):
        super().__init__()
        self.below = nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.Tanh())
        self.above = nn.Sequential(nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 10))

    def forward(self, images):
        hidden = self.below(images)
        if hidden.requires_grad:
            hidden.register_hook(watch)
        return self.above(hidden)


def watch(gradient):
    if gradient.requires_grad:
        gradient.register_hook(count)


def count(_):
    with (HERE / "tally").open("ab") as tally:
        tally.write(b".")
        number = tally.tell()
    while (HERE / "gate").exists() and number >= int((HERE / "gate").read_text()):
        time.sleep(0.01)
"""
TASK = """
name = "tallied"
model = "tallied:Tallied"
data = "digits"
threads = 1
[training]
epochs = 10
batch_size = 64
learning_rate = 0.05
momentum = 0.9
"""
STUDY = """
name = "tallied"
tasks = ["task.toml"]
methods = ["dense"]
sparsities = [0.5]
seeds = [0]
analyses = ["spectrum"]
[options.limit]
tolerance = 0.01
loss_tolerance_nats = 0.05
"""
LIMIT = (
    *("limit", "--model", "tallied:Tallied", "--weights", "mine.pt", "--data", "mine.h5", "--checkpoint", "saved"),
    *("--tolerance", 0.01, "--loss-tolerance", 0.05, "--threads", 1, *TWO_WORKERS, "--json", "limit.json"),
)
RUN = ("run", "study.toml", "--out", "out", "--launcher", "ray", *TWO_WORKERS)


def num_products(folder: Path) -> int:
    tally = folder / "tally"
    return tally.stat().st_size if tally.exists() else 0


def saved_steps(folder: Path) -> list[int]:
    """Return the steps of each run that is saved somewhere below a folder."""
    found = []
    for path in folder.rglob("state.h5"):
        with open_sealed(path) as file:
            found.append(len(file["diagonal"]))
    return found


@pytest.fixture
def twins(place: Path) -> tuple[Path, Path]:
    """Two equal folders of a user: in one of them nothing happens."""
    from sklearn.datasets import load_digits

    quiet, hurt = place / "quiet", place / "hurt"
    quiet.mkdir()
    for name, text in {"tallied.py": NETWORK, "task.toml": TASK, "study.toml": STUDY}.items():
        (quiet / name).write_text(text)
    images, targets = load_digits(return_X_y=True)
    inputs, targets = torch.tensor(images[:150].reshape(-1, 1, 8, 8) / 16, dtype=torch.float32), targets[:150]
    with h5py.File(quiet / "mine.h5", "w") as file:
        file["train/inputs"] = inputs.numpy()
        file["train/targets"] = targets
    space: dict[str, Any] = {"__file__": "tallied.py"}
    exec(NETWORK, space)
    torch.save(trained(space["Tallied"], inputs, torch.tensor(targets)).state_dict(), quiet / "mine.pt")
    shutil.copytree(quiet, hurt)
    return quiet, hurt


@torch.random.fork_rng(devices=[])
def trained(build: Callable[[], nn.Module], inputs: torch.Tensor, targets: torch.Tensor) -> nn.Module:
    """A user's own few lines of training."""
    torch.manual_seed(0)
    model = build()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return model


@pytest.fixture
def killed_and_gone_on_with(
    twins: tuple[Path, Path], start: Callable[..., Any], gone: Callable[..., bool]
) -> Callable[..., tuple[Path, Path]]:
    """Run a command undisturbed; in the other folder kill it halfway and run it again; return the two folders."""

    def work(*arguments: object) -> tuple[Path, Path]:
        quiet, hurt = twins
        code, out, err = start(quiet, *arguments).end()
        assert code == 0, (out, err)
        all_products = num_products(quiet)
        (hurt / "gate").write_text(str(all_products // 2))
        command = start(hurt, *arguments)
        command.wait_until(lambda: num_products(hurt) >= all_products // 2)
        below = command.kill()
        assert any("raylet" in name for name in below.values())
        assert gone(below)
        steps, before = saved_steps(hurt), num_products(hurt)
        assert sum(steps) > all_products // 4
        (hurt / "gate").unlink()
        code, out, err = start(hurt, *arguments).end()
        assert code == 0, (out, err)
        # On top come one product for each run that is found, and the trials of each worker's memory plan.
        assert num_products(hurt) - before < all_products - sum(steps) // 2
        return quiet, hurt

    return work


def test_a_killed_limit_goes_on_from_its_saved_runs(killed_and_gone_on_with: Callable[..., tuple[Path, Path]]) -> None:
    quiet, hurt = (json.loads((folder / "limit.json").read_text()) for folder in killed_and_gone_on_with(*LIMIT))
    for values in (quiet, hurt):
        del values["restarts"], values["reissued"]
    assert quiet["converged"]
    assert len(quiet["checks"]) > 1
    assert hurt == quiet


def test_a_killed_cell_goes_on_from_its_saved_runs(
    killed_and_gone_on_with: Callable[..., tuple[Path, Path]], results: Callable[..., Any]
) -> None:
    quiet, hurt = killed_and_gone_on_with(*RUN)
    assert results(hurt / "out") == results(quiet / "out")
    assert list((hurt / "out" / "cells").glob("spectrum-*.h5"))
    assert not list(hurt.rglob("*.checkpoint"))
