"""What a worker does without Ray around it; actors and groups are in test_crew.py."""

import platform
from dataclasses import dataclass

import pytest
import torch

from launchers import _workers
from launchers._workers import GroupWorker, Keeping, ProbeWorker
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


def test_gpus_that_only_count_workers_are_left_alone(worker: ProbeWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "get_gpu_ids", lambda: [0])
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setenv(_workers.ON_CPU, "1")
    assert worker.ready() == platform.node()


@dataclass(frozen=True)
class PlacedSource:
    """Names a device, as networks do; its operator says which, and lies on the CPU all the same."""

    device: str

    def build(self) -> DiagonalOperator:
        return self.build_shard(0, 1)

    def build_shard(self, rank: int, size: int) -> DiagonalOperator:
        del rank, size
        operator = DiagonalSource().build()
        operator.built_for = self.device  # type: ignore[attr-defined]
        return operator


@pytest.mark.parametrize(("given", "device"), [([3], "cuda"), ([], "cpu")])
@pytest.mark.parametrize("planned_for", ["cpu", "cuda"])
def test_a_worker_computes_on_what_it_was_given_wherever_the_work_was_planned(
    given: list[int], device: str, planned_for: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "get_gpu_ids", lambda: given)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)  # without one of its own it may see another's
    monkeypatch.setattr(_workers, "process_group", lambda *_: None)
    alone = ProbeWorker(PlacedSource(planned_for), torch.get_num_threads())
    alone.ready()
    member = GroupWorker(PlacedSource(planned_for), torch.get_num_threads(), Keeping(), 1, 2, 60.0)
    member.join("nowhere")
    assert [worker.operator.built_for for worker in (alone, member)] == [device] * 2  # type: ignore[union-attr]
    assert alone.source == member.source == PlacedSource(device)  # saved runs are told apart by it
