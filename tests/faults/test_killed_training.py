"""kill -9 in the middle of a training, twice: the same command goes on from what was saved, to the same record.

The network is a user's own module that counts its passes in training in a file, and waits at a gate. So the kill comes
in the middle, however busy the machine, and how much was computed anew is known. It also has every step saved, for
otherwise a training of seconds never is.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow
NETWORK = """
import time
from pathlib import Path

from torch import nn

from suite.training import checkpoint

HERE = Path(__file__).parent
VERSION = 1
checkpoint.SHORTEST_S, checkpoint.MOST_TIME = 0.0, 1.0


class Tallied(nn.Module):
    \"\"\"Each pass in training leaves a byte in the tally.\"\"\"

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 10))

    def forward(self, images):
        if self.training:
            with (HERE / "tally").open("ab") as tally:
                tally.write(b".")
                number = tally.tell()
            while (HERE / "gate").exists() and number >= int((HERE / "gate").read_text()):
                time.sleep(0.01)
        return self.layers(images)
"""
TASK = """
name = "tallied"
model = "tallied:Tallied"
data = "digits"
threads = 1
[training]
epochs = 3
batch_size = 64
learning_rate = 0.05
momentum = 0.9
[recipes.rare_gems]
initialisation = "signed_constant"
"""
STUDY = """
name = "tallied"
tasks = ["task.toml"]
methods = ["{method}"]
sparsities = [0.5]
seeds = [0]
analyses = []
[options.imp]
fraction_per_round = 0.5
rewind_step = 5
[options.rare_gems]
freeze_period = 1
"""
RUN = ("run", "study.toml", "--out", "out", "--launcher", "inline")


def num_passes(folder: Path) -> int:
    tally = folder / "tally"
    return tally.stat().st_size if tally.exists() else 0


@pytest.fixture
def twins(place: Path) -> Callable[[str], tuple[Path, Path]]:
    """Make two equal folders of a user: in one of them nothing happens."""

    def make(method: str) -> tuple[Path, Path]:
        quiet, hurt = place / "quiet", place / "hurt"
        quiet.mkdir()
        options = STUDY.format(method=method)
        unused = {"imp": "rare_gems", "rare_gems": "imp", "dense": "."}[method]
        kept = [part for part in options.split("\n[") if not part.startswith(f"options.{unused}")]
        text = "\n[".join(kept if method != "dense" else kept[:1])
        for name, content in {"tallied.py": NETWORK, "task.toml": TASK, "study.toml": text}.items():
            (quiet / name).write_text(content)
        shutil.copytree(quiet, hurt)
        return quiet, hurt

    return make


# Where in the tally the kills come, as fractions: all dense trainings come before the pruned ones.
@pytest.mark.parametrize(("method", "kills"), [("dense", (0.3, 0.7)), ("imp", (0.75, 0.9)), ("rare_gems", (0.5, 0.9))])
def test_a_killed_training_goes_on(
    twins: Callable[[str], tuple[Path, Path]],
    start: Callable[..., Any],
    results: Callable[..., Any],
    method: str,
    kills: tuple[float, float],
) -> None:
    quiet, hurt = twins(method)
    code, out, err = start(quiet, *RUN).end()
    assert code == 0, (out, err)
    all_passes = num_passes(quiet)
    for fraction in kills:
        gate = int(fraction * all_passes)
        (hurt / "gate").write_text(str(gate))
        command = start(hurt, *RUN)
        command.wait_until(lambda gate=gate: num_passes(hurt) >= gate)
        command.process.kill()
        command.process.wait()
        saved = list((hurt / "out" / "cells").glob("*.checkpoint/*.h5"))
        assert saved
        kinds = {path.parent.name.partition("-")[0] for path in saved}
        assert kinds == {"dense" if method == "dense" else "prune"}
    assert method != "rare_gems" or {path.name.partition("-")[0] for path in saved} == {"search", "training"}
    (hurt / "gate").unlink()
    code, out, err = start(hurt, *RUN).end()
    assert code == 0, (out, err)
    assert results(hurt / "out") == results(quiet / "out")
    assert num_passes(hurt) == all_passes + len(kills)  # only the step in which a kill came was done twice
    assert not list(hurt.rglob("*.checkpoint"))
