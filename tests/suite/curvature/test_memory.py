import pytest
import torch
from torch import nn

from suite.curvature.memory import graph_bytes_per_example, memory_plan
from suite.curvature.operators import HessianOperator


@torch.random.fork_rng(devices=[])  # layers draw initial weights from the global generator
def _operator(num_examples: int = 8, width: int = 50) -> HessianOperator:
    model = nn.Sequential(nn.Linear(20, width), nn.Tanh(), nn.Linear(width, 3))
    return HessianOperator(
        model, ["0.weight", "2.weight"], [(torch.ones(num_examples, 20), torch.zeros(num_examples, dtype=torch.long))]
    )


def test_a_graph_holds_inputs_activations_and_their_cotangents():
    # inputs 20; tanh and its cotangent; of the classes log-softmax, its gradient and the target: few more
    floats = graph_bytes_per_example(_operator()) / 4
    assert 20 + 2 * 50 + 3 <= floats <= 20 + 4 * 50 + 30


def test_it_does_not_depend_on_how_many_examples_lie_there():
    assert graph_bytes_per_example(_operator(8)) == graph_bytes_per_example(_operator(500))


def test_parts_are_as_the_shapes_say():
    operator = _operator()
    plan = memory_plan(operator, 1000, num_vectors=3, num_lanczos_steps=10, data_bytes=7)
    dim = 20 * 50 + 50 * 3
    assert plan.weights_bytes == 4 * (dim + 50 + 3)
    assert plan.vectors_bytes == 4 * 4 * 3 * dim
    assert plan.basis_bytes == 4 * 10 * dim
    assert plan.examples_per_batch == 1000
    fixed = plan.weights_bytes + plan.vectors_bytes + plan.basis_bytes + 7
    assert plan.peak_bytes == fixed + plan.graph_bytes
    assert "1000 examples per batch" in str(plan)


def test_the_batch_is_the_largest_power_of_two_that_fits():
    operator = _operator()
    free = memory_plan(operator, 10**6)
    assert free.examples_per_batch == 2048
    fixed = free.peak_bytes - free.graph_bytes
    budget = fixed + int(100 * free.graph_bytes / free.examples_per_batch)
    plan = memory_plan(operator, 10**6, budget_bytes=budget)
    assert plan.examples_per_batch == 64
    assert plan.peak_bytes <= budget


def test_what_does_not_fit_is_refused_before_it_starts():
    with pytest.raises(ValueError, match=r"GiB with one example per batch.*Expected: fewer Lanczos steps"):
        memory_plan(_operator(), 10, num_lanczos_steps=100, budget_bytes=1000)
