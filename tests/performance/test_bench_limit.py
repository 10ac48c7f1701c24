from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from suite.curvature.operators import CountedOperator, DiagonalOperator
from suite.networks.sources import MemoryNetwork
from tests.performance import reference as module
from tests.performance.bench_limit import shares, timed_products
from tests.performance.reference import reference, reference_path, stored_probes

NUM_STEPS = 4


@pytest.fixture
@torch.random.fork_rng(devices=[])  # layers draw initial weights from the global generator
def network() -> tuple[nn.Module, MemoryNetwork]:
    torch.manual_seed(0)
    model, inputs = nn.Linear(3, 2), torch.randn(8, 3)
    return model, MemoryNetwork.of(model, inputs, (inputs[:, 0] > 0).long(), "float64")


def test_only_missing_probes_of_the_reference_are_computed(
    network: tuple[nn.Module, MemoryNetwork], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, source = network
    first = reference(model, source, [0], NUM_STEPS, tmp_path)
    assert stored_probes(model, NUM_STEPS, tmp_path) == [0]
    computed: list[int] = []
    run = module.compute_probe
    monkeypatch.setattr(module, "compute_probe", lambda *each: (computed.append(each[1]), run(*each)))
    both = reference(model, source, [0, 1], NUM_STEPS, tmp_path)
    assert computed == [1]
    assert np.array_equal(both.quadratures[0].nodes, first.quadratures[0].nodes)


def test_another_network_has_another_reference(network: tuple[nn.Module, MemoryNetwork], tmp_path: Path) -> None:
    model, _ = network
    before = reference_path(model, 0, NUM_STEPS, tmp_path)
    with torch.no_grad():
        model.weight[0, 0] += 1.0
    assert reference_path(model, 0, NUM_STEPS, tmp_path) != before


def test_products_are_timed_only_within() -> None:
    operator, untimed = DiagonalOperator(torch.ones(3)), CountedOperator.matmat
    operator.num_examples = 7  # type: ignore[attr-defined]
    with timed_products() as spent:
        operator.matvec(torch.ones(3))
        operator.matmat(torch.ones(3, 2))
    operator.matvec(torch.ones(3))
    assert {num_examples: len(seconds) for num_examples, seconds in spent.items()} == {7: 2}
    assert CountedOperator.matmat is untimed


def test_the_shares_of_the_time_add_up() -> None:
    text = shares({256: [1.0, 1.0], 1024: [3.0, 3.0]}, 10.0)
    assert "20% in 2 products over 256 examples, 60% in 2 products over 1,024 examples; 20% in" in text
