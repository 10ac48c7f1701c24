"""The Gauss-Newton matrix against J'(diag p - pp')J with the whole Jacobian, in float64."""

import pytest
import torch
from torch import nn
from torch.func import functional_call

from suite.curvature.arithmetic import Execution
from suite.curvature.operators import GaussNewtonOperator, HessianOperator


def _dense(network) -> torch.Tensor:
    """Return the mean over examples of J' (diag p - p p') J from dense Jacobians."""
    network.model.eval()
    inputs = torch.cat([inputs for inputs, _ in network.batches]).double()
    state = {name: value.detach().double() for name, value in network.model.state_dict().items()}
    shapes = [state[name].shape for name in network.names]

    def logits(vector: torch.Tensor) -> torch.Tensor:
        parts = torch.split(vector, [shape.numel() for shape in shapes])
        named = {name: part.reshape(shape) for name, part, shape in zip(network.names, parts, shapes, strict=True)}
        return functional_call(network.model, state | named, (inputs,))

    jacobian = torch.autograd.functional.jacobian(logits, network.point())  # (n, classes, dim)
    probabilities = logits(network.point()).softmax(dim=1)
    curvature = torch.diag_embed(probabilities) - probabilities.unsqueeze(2) * probabilities.unsqueeze(1)
    return torch.einsum("ncd,nce,nef->df", jacobian, curvature, jacobian) / len(inputs)


@pytest.mark.parametrize("fast_kernels", [True, False])
def test_products_equal_the_dense_matrix(network, fast_kernels):
    execution = Execution(fast_kernels=fast_kernels)
    operator = GaussNewtonOperator(network.model, network.names, network.batches, torch.float64, execution=execution)
    expected = _dense(network)
    identity = torch.eye(operator.dim, dtype=torch.float64)
    torch.testing.assert_close(operator.matmat(identity), expected, rtol=1e-10, atol=1e-13)


def test_it_is_positive_semidefinite_and_the_hessian_is_not(network):
    identity = torch.eye(len(network.point()), dtype=torch.float64)
    gauss_newton = GaussNewtonOperator(network.model, network.names, network.batches, torch.float64)
    smallest = torch.linalg.eigvalsh(gauss_newton.matmat(identity)).min()
    assert smallest > -1e-12
    assert torch.linalg.eigvalsh(network.operator().matmat(identity)).min() < -1e-6


def test_of_a_linear_model_it_is_the_hessian(small_mlp):
    with torch.random.fork_rng(devices=[]):
        model = nn.Linear(5, 3)
    vector = torch.randn(15, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    both = [
        kind(model, ["weight"], small_mlp.batches, torch.float64) for kind in (HessianOperator, GaussNewtonOperator)
    ]
    torch.testing.assert_close(both[1].matvec(vector), both[0].matvec(vector), rtol=1e-11, atol=1e-14)
