from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from suite.network import ModelSpec
from suite.problem import Problem, as_arrays, as_state, evaluate
from suite.pruning.masks import masked
from suite.splits import Split

SPEC = ModelSpec(name="mlp", options={"hidden": [8]}, input_shape=(6,), num_classes=3)


def data(count: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(count, 6, generator=draw, dtype=dtype), torch.randint(0, 3, (count,), generator=draw)


def network() -> Any:
    return Problem.of(SPEC, {}, initialisation="kaiming_normal", seed=0, device="cpu").model


@pytest.mark.parametrize("batch_size", [1, 7, 50, 2048])
def test_evaluation_is_the_plain_mean_over_all_examples(batch_size: int) -> None:
    model = network().double()
    inputs, targets = data(50)
    found = evaluate(model, Split(inputs, targets), batch_size=batch_size)
    hidden = np.maximum(inputs.numpy() @ model[1].weight.detach().numpy().T, 0)  # biases are zero
    logits = hidden @ model[3].weight.detach().numpy().T
    shifted = logits - logits.max(axis=1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(50), targets.numpy()]
    assert found.loss == pytest.approx(losses.mean(), rel=1e-13)
    assert found.accuracy == np.count_nonzero(logits.argmax(axis=1) == targets.numpy()) / 50


def test_a_single_precision_network_is_summed_in_double() -> None:
    model = network()
    inputs, targets = data(5000, torch.float32)
    with torch.no_grad():
        logits = torch.cat([model(batch) for batch in torch.split(inputs, 2048)]).double()
    exact = nn.functional.cross_entropy(logits, targets)
    assert evaluate(model, Split(inputs, targets)).loss == pytest.approx(float(exact), rel=1e-14)


def test_evaluation_uses_running_statistics_and_leaves_no_trace() -> None:
    with torch.random.fork_rng(devices=[]):
        model = nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
    model.get_buffer("1.running_mean").fill_(0.5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    inputs, targets = data(20, torch.float32)
    found = evaluate(model, Split(inputs, targets))
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    with torch.no_grad():
        logits = model.eval()(inputs)
    assert found.loss == pytest.approx(float(nn.functional.cross_entropy(logits, targets)), rel=1e-6)
    assert evaluate(model, Split(inputs, targets)) == found
    assert not model.training


def test_an_evaluation_in_bfloat16_rounds_products_and_sums_logits_in_double() -> None:
    model = network()
    inputs, targets = data(300, torch.float32)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        logits = torch.cat([model(batch) for batch in torch.split(inputs, 100)])
    assert logits.dtype == torch.bfloat16
    found = evaluate(model, Split(inputs, targets), batch_size=100, operands="bfloat16")
    assert found.loss == pytest.approx(float(nn.functional.cross_entropy(logits.double(), targets)), rel=1e-14)
    assert found.accuracy == int((logits.argmax(dim=1) == targets).sum()) / 300
    assert found != evaluate(model, Split(inputs, targets), batch_size=100)
    assert not torch.is_autocast_enabled("cpu")


def test_a_problem_is_a_function_of_its_seed() -> None:
    def build(seed: int) -> dict[str, Tensor]:
        return Problem.of(SPEC, {}, initialisation="kaiming_normal", seed=seed, device="cpu").state()

    assert all(torch.equal(build(1)[name], value) for name, value in build(1).items())
    assert not torch.equal(build(1)["1.weight"], build(2)["1.weight"])


def test_its_state_is_a_copy_and_loads_back() -> None:
    problem = Problem.of(SPEC, {}, initialisation="kaiming_normal", seed=0, device="cpu")
    state = problem.state()
    assert problem.num_prunable == 6 * 8 + 8 * 3
    problem.prunable["1.weight"].data.zero_()
    assert state["1.weight"].all()
    problem.load(state)
    assert torch.equal(problem.prunable["1.weight"], state["1.weight"])


def test_a_state_survives_as_arrays() -> None:
    with torch.random.fork_rng(devices=[]):
        state = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).state_dict()
    arrays = as_arrays(state, "weights")
    assert arrays["weights/1.num_batches_tracked"].dtype == np.int64
    found = as_state({name.removeprefix("weights/"): array for name, array in arrays.items()})
    assert list(found) == list(state)
    assert all(torch.equal(found[name], state[name]) for name in state)
    found["0.weight"].zero_()
    assert arrays["weights/0.weight"].any()  # arrays are copied, so a record cannot be changed through them


def test_a_mask_of_a_shared_weight_is_not_undone_by_its_other_name() -> None:
    with torch.random.fork_rng(devices=[]):
        model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    problem = Problem(model, {})
    masks = {name: weight.detach() > 0 for name, weight in problem.prunable.items()}
    start = masked(problem.state(), masks)
    problem.load(start)
    assert 0 < int(masks["0.weight"].sum()) < 16
    assert torch.equal(model[2].weight, start["0.weight"])
