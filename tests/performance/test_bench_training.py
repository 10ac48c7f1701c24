"""The benchmark runs on two cores, and its plain loop does what it says."""

import json
from pathlib import Path

import pytest
import torch

from suite.splits import Normalisation
from tests.performance import bench_training
from tests.performance.bench_training import CPU_WAYS, PLAIN, SMOKE, OurSteps, network, recipe
from tests.performance.learnable import pixels
from tests.performance.plain_training import PADDING, Images, PlainTraining


def test_an_image_is_a_crop_of_the_padded_one_normalised() -> None:
    inputs, targets = pixels(1, 2, 8)
    images = Images(inputs, targets, Normalisation((0.5,) * 3, (0.2,) * 3))
    padded = torch.nn.functional.pad(inputs[0], [PADDING] * 4)
    windows = padded.unfold(1, 8, 1).unfold(2, 8, 1).permute(1, 2, 0, 3, 4).reshape(-1, 3, 8, 8)
    every = (torch.cat([windows, windows.flip(-1)]).float() / 255 - 0.5) / 0.2
    with torch.random.fork_rng(devices=[]):
        found = {int((every - images[0][0]).abs().amax((1, 2, 3)).argmin()) for _ in range(40)}
        assert float((every - images[0][0]).abs().amax((1, 2, 3)).min()) < 1e-6
    assert len(found) > 20


def test_both_loops_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_training, "LEARNING_RATE", 0.05)
    inputs, targets = pixels(SMOKE.num_examples, SMOKE.num_classes, SMOKE.size)
    examples = bench_training.Split(inputs, targets, bench_training.NORMALISATION)
    ours = OurSteps(SMOKE, examples, recipe("float32", CPU_WAYS), network(SMOKE, "cpu"))
    images = Images(inputs, targets, bench_training.NORMALISATION)
    plain = PlainTraining(network(SMOKE, "cpu"), images, num_workers=0)
    with torch.random.fork_rng(devices=[]):
        for each in (ours.epoch, plain.epoch):
            losses = [each() for _ in range(4)]
            assert losses[-1] < losses[0]


@pytest.mark.slow  # loader processes begin
def test_it_runs_and_writes_where_it_is_told(tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        threads = torch.get_num_threads()
        ways = ["--ways", "float32", "bfloat16"]
        main = bench_training.main
        main(
            [
                "--smoke",
                "--rounds",
                "1",
                "--threads",
                "1",
                *ways,
                "--out",
                str(tmp_path),
            ]
        )
        torch.set_num_threads(threads)
    found = json.loads((tmp_path / "training.json").read_text())
    assert found["columns"] == ["", PLAIN, "float32", "bfloat16"]
    assert all(len(row) == len(found["columns"]) for row in found["rows"])
    assert "×; " in found["rows"][0][2]


def test_a_smoke_run_never_touches_the_results() -> None:
    with pytest.raises(SystemExit):
        bench_training.main(["--smoke"])
