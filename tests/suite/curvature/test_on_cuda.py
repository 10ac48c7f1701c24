"""What only a CUDA device can show. Run on a machine that has one: pytest -m gpu

Bounds are those of the formats, not of one chip: 10 bits of mantissa are 1e-3 per operand, 23 bits 1e-7, and an error
of a product is some ten times that at most on networks as small as these.
"""

import pytest
import torch
from torch import nn

from suite.curvature.arithmetic import Execution
from suite.curvature.basis import Placement
from suite.curvature.convexified import convexified
from suite.curvature.lanczos import LanczosRun, Tridiagonal
from suite.curvature.operators import GaussNewtonOperator, HessianOperator, MatrixOperator
from suite.curvature.quadrature import gauss_quadrature
from suite.limits.exact_masks import exact_masked_limit
from suite.limits.removal import MagnitudeOrder

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)

Pair = tuple[torch.Tensor, torch.Tensor]


@torch.random.fork_rng(devices=[])  # layers draw initial weights from the global generator
def _convolutional() -> tuple[nn.Module, list[str], list[Pair]]:
    """Smooth, so that rounding flips nothing; wide, so that the kernels are those of large networks."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.Tanh(), nn.Conv2d(32, 64, 3, stride=2), nn.Tanh()]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 7 * 7, 128), nn.Tanh(), nn.Linear(128, 10))
    inputs, targets = torch.randn(48, 3, 16, 16), torch.randint(0, 10, (48,))
    names = [name for name, value in model.named_parameters() if value.ndim > 1]
    return model.eval(), names, [(inputs[:32], targets[:32]), (inputs[32:], targets[32:])]


def _on(device: torch.device, batches: list[Pair]) -> list[Pair]:
    return [(inputs.to(device), targets.to(device)) for inputs, targets in batches]


def _probe(dim: int) -> torch.Tensor:
    return torch.randint(0, 2, (dim,), generator=torch.Generator().manual_seed(1)) * 2.0 - 1.0


def _error(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found.cpu().double() - exact).norm() / exact.norm())


@pytest.mark.parametrize("kind", [HessianOperator, GaussNewtonOperator])
@pytest.mark.parametrize("fast_kernels", [True, False])
def test_products_on_the_device_are_those_of_the_cpu_in_float64(kind, fast_kernels):
    model, names, batches = _convolutional()
    exact_operator = kind(model, names, batches, torch.float64)
    probe = _probe(exact_operator.dim)
    exact = exact_operator.matvec(probe.double())
    model, batches = model.to(CUDA), _on(CUDA, batches)
    execution = Execution(fast_kernels=fast_kernels)
    for dtype, bound in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        operator = kind(model, names, batches, dtype, execution=execution)
        found = operator.matvec(probe.to(CUDA, dtype))
        assert found.device.type == "cuda"
        assert _error(found, exact) < bound


@pytest.mark.parametrize("allowed", [True, False])
def test_tf32_is_what_operands_say_and_the_switches_are_put_back(allowed, allow_tf32):
    if torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("TF32 came with compute capability 8.0")
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    allow_tf32(allowed)
    model, names, batches = _convolutional()
    probe = _probe(sum(model.get_parameter(name).numel() for name in names))
    exact = HessianOperator(model, names, batches, torch.float64).matvec(probe.double())
    model, batches = model.to(CUDA), _on(CUDA, batches)
    errors = {}
    for operands in ("full", "tf32", "bfloat16"):
        operator = HessianOperator(model, names, batches, execution=Execution(operands=operands))
        errors[operands] = _error(operator.matvec(probe.to(CUDA)), exact)
        assert (matmul.allow_tf32, cudnn.allow_tf32) == (allowed, allowed)
    assert errors["full"] < 1e-5 < errors["tf32"] < 1e-2
    assert errors["tf32"] < errors["bfloat16"] < 0.2


def _tridiagonal(placement: Placement, dtype: torch.dtype, num_steps: int) -> Tridiagonal:
    """Run Lanczos on a matrix with a known spectrum and spread eigenvectors, with its basis in one place."""
    draw = torch.Generator().manual_seed(2)
    spectrum = torch.cat([torch.logspace(-4, -1, 480), torch.logspace(-1, 1, 20)]).double()
    vectors = torch.linalg.qr(torch.randn((500, 500), generator=draw, dtype=torch.float64))[0]
    matrix = ((vectors * spectrum) @ vectors.T).to(CUDA, dtype)
    start = torch.randn(500, generator=draw).to(CUDA, dtype)
    return LanczosRun(start, placement=placement).extend_to(MatrixOperator(matrix).matvec, num_steps)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-9), (torch.float32, 1e-3)])
def test_a_basis_in_host_memory_gives_the_tridiagonal_of_one_on_the_device(dtype, bound):
    here, host = (_tridiagonal(Placement(device, dtype), dtype, 24) for device in (CUDA, CPU))
    assert here.status == host.status == "complete"
    for one, other in ((here.diagonal, host.diagonal), (here.off_diagonal, host.off_diagonal)):
        assert other == pytest.approx(one, rel=bound, abs=bound * abs(here.diagonal).max())


def test_a_basis_in_float16_hardly_moves_the_tridiagonals_integral():
    integrals = []
    for placed in (torch.float32, torch.float16):
        found = _tridiagonal(Placement(CUDA, placed), torch.float32, 64)
        rule = gauss_quadrature(found.diagonal, found.off_diagonal)
        integrals.append(float(rule.quadrature_weights @ (1e-2 / (1e-2 + abs(rule.nodes)))))
    assert integrals[1] == pytest.approx(integrals[0], abs=1e-3)


def test_kept_graphs_give_the_same_products_on_the_device():
    model, names, batches = _convolutional()
    model, batches = model.to(CUDA), _on(CUDA, batches)
    plain, kept = (
        HessianOperator(model, names, batches, torch.float64, execution=Execution(keep_graphs=keep))
        for keep in (False, True)
    )
    probe = _probe(plain.dim).to(CUDA, torch.float64)
    for _ in range(2):  # kernels may sum in another order from call to call, so not the same bits
        torch.testing.assert_close(kept.matvec(probe), plain.matvec(probe), rtol=1e-9, atol=1e-13)


def test_the_convexified_hessian_on_the_device_is_that_of_the_cpu():
    found = []
    for device in (CPU, CUDA):
        model, names, batches = _convolutional()
        model, batches = model.to(device), _on(device, batches)
        hessian, gauss_newton = (
            kind(model, names, batches, torch.float64) for kind in (HessianOperator, GaussNewtonOperator)
        )
        operator = convexified(hessian, gauss_newton, hessian.weights(), 6)
        found.append(operator.matvec(_probe(operator.dim).to(device, torch.float64)).cpu())
    torch.testing.assert_close(found[1], found[0], rtol=1e-6, atol=1e-9 * float(found[0].abs().max()))


def test_exact_masks_on_the_device_are_those_of_the_cpu():
    draw = torch.Generator().manual_seed(0)
    vectors = torch.linalg.qr(torch.randn((80, 80), generator=draw, dtype=torch.float64))[0]
    values = torch.linspace(-0.1, 2.0, 80, dtype=torch.float64)
    order = MagnitudeOrder.of(torch.randn(80, generator=draw).numpy())
    counts = [
        exact_masked_limit(values.to(each), vectors.to(each), order, 0.05, 40).num_removed for each in (CPU, CUDA)
    ]
    assert counts[0] == counts[1] > 0
