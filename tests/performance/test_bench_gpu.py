import math

import pytest
import torch
from torch import nn

from tests.performance.bench_gpu import SMOKE, batches, measure, multiplies
from tests.performance.contenders import Workload


@torch.random.fork_rng(devices=[])  # layers draw initial weights from the global generator
def _work() -> Workload:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, stride=2), nn.Flatten(), nn.Linear(64, 5))
    return Workload(model, torch.zeros(5, 3, 8, 8), torch.zeros(5, dtype=torch.long))


def test_multiplications_are_counted_per_example() -> None:
    assert multiplies(_work()) == 4 * 4 * (4 * 3 * 9) + 64 * 5


def test_all_examples_are_in_batches() -> None:
    assert [len(targets) for _, targets in batches(_work(), 2)] == [2, 2, 1]


@pytest.mark.filterwarnings("ignore")  # of the peer, where it is installed
def test_it_runs_without_a_device() -> None:
    result = measure(SMOKE, "cpu")
    assert [row[0] for row in result.rows][:2] == ["espalier, float32", "espalier, bfloat16"]
    assert all(len(row) == len(result.columns) for row in result.rows)
    full, coarse = (result.details[name]["rounding"].relative_error for name in ("full", "bfloat16"))
    assert full < 1e-3 < coarse
    assert math.isfinite(result.details["full"]["products_per_s"])
    assert result.details["examples_per_batch"] == SMOKE.num_examples
