import pytest
import torch
from torch import nn

from suite.curvature.arithmetic import Execution
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
    free = memory_plan(operator, 10**8)
    assert (free.examples_per_batch, free.num_kept_examples) == (2048, 0)
    fixed = free.peak_bytes - free.graph_bytes
    budget = fixed + int(100 * free.graph_bytes / free.examples_per_batch)
    plan = memory_plan(operator, 10**8, budget_bytes=budget)
    assert plan.examples_per_batch == 64
    assert plan.peak_bytes <= budget


def test_graphs_are_kept_where_those_of_all_examples_take_half_of_what_is_free():
    operator = _operator()
    plan = memory_plan(operator, 5000)
    assert (plan.num_kept_examples, plan.examples_per_batch) == (5000, 2048)
    per_example, fixed = plan.graph_bytes_per_example, plan.peak_bytes - plan.graph_bytes
    assert plan.graph_bytes == pytest.approx(per_example * (5000 + 0.6 * 2048), abs=1)
    enough = fixed + 2 * plan.graph_bytes + 2
    assert memory_plan(operator, 5000, budget_bytes=enough).num_kept_examples == 5000
    assert memory_plan(operator, 5000, budget_bytes=enough - 4).num_kept_examples == 0


def test_on_the_cpu_large_data_and_long_bases_change_no_batch():
    small, large = (
        memory_plan(_operator(), 5000, data_bytes=size, num_lanczos_steps=size // 2**20) for size in (0, 10 * 2**30)
    )
    assert (large.examples_per_batch, large.num_kept_examples) == (small.examples_per_batch, small.num_kept_examples)
    assert large.peak_bytes > 10 * 2**30 + small.peak_bytes


def test_kept_graphs_give_the_same_bits():
    operator = _operator()
    batches = [(torch.randn(5, 20, generator=torch.Generator().manual_seed(1)), torch.arange(5) % 3)]
    vectors = torch.randn(operator.dim, 2, generator=torch.Generator().manual_seed(2))
    with torch.random.fork_rng(devices=[]):
        model = nn.Sequential(nn.Linear(20, 50), nn.Tanh(), nn.Linear(50, 3))
    names = ["0.weight", "2.weight"]
    plain = HessianOperator(model, names, batches)
    kept = HessianOperator(model, names, batches, execution=Execution(keep_graphs=True))
    for _ in range(2):  # the second time from what the first kept
        assert torch.equal(kept.matmat(vectors), plain.matmat(vectors))
        assert torch.equal(kept.matvec(vectors[:, 0]), plain.matvec(vectors[:, 0]))


def test_what_does_not_fit_is_refused_before_it_starts():
    with pytest.raises(ValueError, match=r"GiB with one example per batch.*Expected: fewer Lanczos steps"):
        memory_plan(_operator(), 10, num_lanczos_steps=100, budget_bytes=1000)
