"""What a worker does without Ray around it; actors and groups are in test_crew.py."""

from dataclasses import dataclass

import pytest
import torch

from launchers._workers import ProbeWorker
from suite.curvature.operators import DiagonalOperator
from suite.curvature.probes import ProbeRequest
from suite.curvature.slq import ProbeResult

ray = pytest.importorskip("ray")


@dataclass(frozen=True)
class DiagonalSource:
    def build(self) -> DiagonalOperator:
        return DiagonalOperator(torch.linspace(0.0, 3.0, 30, dtype=torch.float64))


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> ProbeWorker:
    monkeypatch.setattr(ray, "get_gpu_ids", list)
    return ProbeWorker(DiagonalSource(), threads=torch.get_num_threads())


def test_its_pulse_counts_requests_and_the_products_of_the_latest(worker: ProbeWorker) -> None:
    assert worker.pulse() == (0, 0)
    worker.ready()
    assert worker.pulse() == (0, 0)
    for number, steps in enumerate((5, 8), start=1):
        result = worker.run(ProbeRequest(0, number, "normal", steps))
        assert isinstance(result, ProbeResult)
        assert worker.pulse() == (number, steps)


@pytest.mark.parametrize(("given", "seen"), [([0], 8), ([3], 0)])
def test_a_worker_that_sees_other_gpus_than_its_own_stops(
    given: list[int], seen: int, worker: ProbeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "get_gpu_ids", lambda: given)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: seen)
    with pytest.raises(RuntimeError, match=f"sees {seen} GPUs and was given 1"):
        worker.ready()
