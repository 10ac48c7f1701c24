import pytest
import torch
from torch import nn

from suite.curvature.operators import (
    DiagonalOperator,
    HessianOperator,
    MatrixOperator,
    flatten_weights,
    unflatten_weights,
)


def _vectors(dim: int, num: int, seed: int = 0) -> torch.Tensor:
    return torch.randn((dim, num), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_products_equal_the_dense_hessian(network):
    operator = network.operator()
    vectors = _vectors(operator.dim, 3)
    expected = network.hessian() @ vectors
    torch.testing.assert_close(operator.matmat(vectors), expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(operator.matvec(vectors[:, 1]), expected[:, 1], rtol=1e-10, atol=1e-12)


def test_products_equal_finite_differences_of_gradients(network):
    operator = network.operator()
    vector = _vectors(operator.dim, 1)[:, 0]
    point, step = network.point(), 1e-5
    difference = (network.gradient(point + step * vector) - network.gradient(point - step * vector)) / (2 * step)
    torch.testing.assert_close(operator.matvec(vector), difference, rtol=1e-6, atol=1e-8)


def test_hessian_is_symmetric(network):
    operator = network.operator()
    left, right = _vectors(operator.dim, 2).unbind(1)
    assert torch.dot(left, operator.matvec(right)) == pytest.approx(float(torch.dot(right, operator.matvec(left))))


@pytest.mark.parametrize("size", [1, 5, 16, 17])
def test_split_into_batches_changes_nothing(network, size):
    inputs = torch.cat([inputs for inputs, _ in network.batches])
    targets = torch.cat([targets for _, targets in network.batches])
    batches = list(zip(inputs.split(size), targets.split(size), strict=True))
    other = HessianOperator(network.model, network.names, batches, torch.float64)
    vectors = _vectors(other.dim, 2)
    torch.testing.assert_close(other.matmat(vectors), network.operator().matmat(vectors), rtol=1e-11, atol=1e-13)


def test_shards_of_the_data_add_up_to_the_whole(network):
    inputs = torch.cat([inputs for inputs, _ in network.batches])
    targets = torch.cat([targets for _, targets in network.batches])
    vectors = _vectors(network.operator().dim, 2)
    summed = torch.zeros_like(vectors)
    for part in (slice(0, 5), slice(5, None)):
        batches = [(inputs[part], targets[part])]
        shard = HessianOperator(network.model, network.names, batches, torch.float64, num_examples=len(targets))
        summed += shard.matmat(vectors)
    torch.testing.assert_close(summed, network.operator().matmat(vectors), rtol=1e-11, atol=1e-13)


def test_a_shard_larger_than_the_whole_is_refused(network):
    with pytest.raises(ValueError, match="at most all"):
        HessianOperator(network.model, network.names, network.batches, num_examples=1)


def test_float32_is_within_rounding(network):
    exact, single = network.operator(), network.operator(torch.float32)
    vectors = _vectors(exact.dim, 2)
    product = single.matmat(vectors.float())
    assert product.dtype == torch.float32
    scale = float(exact.matmat(vectors).abs().max())
    torch.testing.assert_close(product.double(), exact.matmat(vectors), rtol=0, atol=1e-5 * scale)


def test_order_of_names_is_the_order_of_coordinates(small_mlp):
    forward = small_mlp.operator()
    backward = HessianOperator(small_mlp.model, small_mlp.names[::-1], small_mlp.batches, torch.float64)
    sizes = [30, 24, 12]
    parts = forward.weights().split(sizes)
    torch.testing.assert_close(backward.weights(), torch.cat(parts[::-1]))
    vector = _vectors(forward.dim, 1)[:, 0]
    product = forward.matvec(vector).split(sizes)
    reversed_product = backward.matvec(torch.cat(vector.split(sizes)[::-1]))
    torch.testing.assert_close(reversed_product, torch.cat(product[::-1]))


def test_model_is_left_as_it_was_but_in_eval_mode(network):
    network.model.train()
    before = {name: value.clone() for name, value in network.model.state_dict().items()}
    operator = network.operator()
    operator.matvec(_vectors(operator.dim, 1)[:, 0])
    assert not network.model.training
    assert all(torch.equal(value, before[name]) for name, value in network.model.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in network.model.parameters())
    assert not any(module._forward_hooks for module in network.model.modules())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])  # the model's own type needs an explicit copy
def test_later_changes_of_the_model_are_not_seen(small_mlp, dtype):
    operator = small_mlp.operator(dtype)
    vector = _vectors(operator.dim, 1)[:, 0].to(dtype)
    before = operator.matvec(vector)
    with torch.no_grad():
        for parameter in small_mlp.model.parameters():
            parameter.mul_(2.0)
    torch.testing.assert_close(operator.matvec(vector), before, rtol=0, atol=0)


def test_products_are_possible_without_gradient_mode(small_mlp):
    operator = small_mlp.operator()
    vector = _vectors(operator.dim, 1)[:, 0]
    expected = operator.matvec(vector)
    with torch.no_grad():
        torch.testing.assert_close(operator.matvec(vector), expected, rtol=0, atol=0)


def test_matvecs_are_counted_per_column(small_mlp):
    operator = small_mlp.operator()
    operator.matmat(_vectors(operator.dim, 5))
    operator.matvec(_vectors(operator.dim, 1)[:, 0])
    assert operator.num_matvecs == 6


class _SecondLayerUnused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used = nn.Linear(5, 3)
        self.unused = nn.Linear(5, 2)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.used(inputs)


@torch.random.fork_rng(devices=[])  # layers draw initial weights from the global generator
def _second_layer_unused() -> _SecondLayerUnused:
    return _SecondLayerUnused()


def test_weights_the_loss_does_not_reach_have_zero_rows(small_mlp):
    model = _second_layer_unused()
    both = HessianOperator(model, ["used.weight", "unused.weight"], small_mlp.batches, torch.float64)
    product = both.matvec(torch.ones(25, dtype=torch.float64))
    assert product[:15].abs().max() > 0
    assert torch.equal(product[15:], torch.zeros(10, dtype=torch.float64))


def test_logits_that_do_not_depend_on_the_weights_are_refused(small_mlp):
    with pytest.raises(ValueError, match=r"carry no gradient to unused\.weight"):
        HessianOperator(_second_layer_unused(), ["unused.weight"], small_mlp.batches)


def test_unknown_repeated_and_missing_names_are_refused(small_mlp):
    with pytest.raises(ValueError, match=r"No parameters named 9\.weight\. Known: 0\.bias, 0\.weight"):
        HessianOperator(small_mlp.model, ["9.weight"], small_mlp.batches)
    with pytest.raises(ValueError, match=r"named twice: 0\.weight"):
        HessianOperator(small_mlp.model, ["0.weight", "0.weight"], small_mlp.batches)
    with pytest.raises(ValueError, match="0 parameters"):
        HessianOperator(small_mlp.model, [], small_mlp.batches)
    with pytest.raises(ValueError, match="0 examples"):
        HessianOperator(small_mlp.model, ["0.weight"], [])


def test_wrong_shapes_are_refused():
    operator = DiagonalOperator(torch.ones(4))
    with pytest.raises(ValueError, match=r"\(3, 1\)\. Expected: \(4, k\)"):
        operator.matvec(torch.ones(3))
    with pytest.raises(ValueError, match=r"Expected: \(4,\)"):
        operator.matvec(torch.ones(4, 1))


def test_explicit_operators_multiply():
    matrix = torch.tensor([[2.0, 1.0], [1.0, 3.0]])
    assert torch.equal(MatrixOperator(matrix).matvec(torch.tensor([1.0, 2.0])), torch.tensor([4.0, 7.0]))
    assert torch.equal(
        DiagonalOperator(torch.tensor([2.0, 3.0])).matmat(torch.eye(2)), torch.diag(torch.tensor([2, 3.0]))
    )


def test_unflatten_undoes_flatten():
    tensors = [torch.arange(6.0).reshape(2, 3), torch.arange(4.0).reshape(1, 2, 2), torch.tensor(7.0)]
    back = unflatten_weights(flatten_weights(tensors), [tensor.shape for tensor in tensors])
    assert all(torch.equal(one, other) for one, other in zip(back, tensors, strict=True))
