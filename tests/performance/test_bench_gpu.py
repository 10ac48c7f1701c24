import math
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import nn

from suite.curvature.memory import memory_plan
from suite.curvature.operators import HessianOperator
from tests.performance import bench_gpu
from tests.performance.bench_gpu import SMOKE, batch_plan, batches, measure, multiplies, rate
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
    assert "graphs kept" not in result.details["plan"]


def test_memory_is_planned_for_the_graphs_that_are_held() -> None:
    work = _work()
    operator = HessianOperator(work.model, list(work.weights), [(work.inputs[:2], work.targets[:2])])
    plan, kept = batch_plan(work), memory_plan(operator, len(work.targets), data_bytes=work.inputs.nbytes)
    assert (plan.num_kept_examples, kept.num_kept_examples) == (0, 5)
    assert 0 < plan.graph_bytes <= kept.graph_bytes


def test_rates_are_printed_with_their_quartiles() -> None:
    assert rate([0.5, 0.25, 1.0]) == "2 (1.5 to 3)"


@pytest.mark.filterwarnings("ignore")  # of the peer
def test_the_peer_computes_without_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyhessian")
    asked: list[str] = []

    @contextmanager
    def noted(operands: str, device: torch.device) -> Iterator[None]:
        asked.append(operands)
        yield

    monkeypatch.setattr(bench_gpu, "tensor_cores", noted)
    work = _work()
    bench_gpu.peer(work, batch_plan(work), SMOKE)
    assert asked == ["full", "full"]
