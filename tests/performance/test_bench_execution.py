"""The ways to compile a product are right before they are compiled; what the table says of them."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from suite.curvature.operators import GaussNewtonOperator, HessianOperator, flatten_weights, unflatten_weights
from tests.performance.bench_execution import COLUMNS, EXECUTIONS, compiled_cells, rounding, rounding_cells
from tests.performance.compiled import Pure
from tests.performance.contenders import Workload


@torch.random.fork_rng(devices=[])  # layers draw initial weights from the global generator
def _work() -> Workload:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(64, 5))
    model[1].running_mean = torch.linspace(-0.1, 0.1, 4)
    model[1].running_var = torch.linspace(0.2, 0.4, 4)
    return Workload(model.double().eval(), torch.randn(6, 3, 6, 6).double(), torch.tensor([0, 1, 2, 3, 4, 0]))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch's own forward mode
@pytest.mark.parametrize(
    ("way", "kind"),
    [
        (Pure.forward_over_reverse, HessianOperator),
        (Pure.reverse_over_reverse, HessianOperator),
        (Pure.gauss_newton, GaussNewtonOperator),
    ],
)
def test_the_functions_to_be_compiled_give_our_products(way: Callable, kind: type) -> None:
    work = _work()
    pure = Pure(work)
    operator = kind(work.model, list(work.weights), [(work.inputs, work.targets)], torch.float64)
    vector = torch.randn(operator.dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shapes = [weight.shape for weight in pure.weights.values()]
    parts = dict(zip(pure.weights, unflatten_weights(vector, shapes), strict=True))
    found = way(pure, pure.weights, parts)
    torch.testing.assert_close(
        flatten_weights([found[name] for name in parts]), operator.matvec(vector), rtol=1e-9, atol=1e-12
    )


def test_the_fastest_hessian_is_shown_with_and_without_its_compilation() -> None:
    ways = {
        "forward": {"error": "RuntimeError: no double backward"},
        "forward over reverse": {"compile_s": 10.0, "seconds": {"espalier": [1.0], "compiled": [2.0]}},
        "reverse over reverse": {"compile_s": 50.0, "seconds": {"espalier": [1.0], "compiled": [0.5]}},
        "gauss_newton": {"error": "differs"},
    }
    assert compiled_cells(ways) == ["0.50 (one round)", "1.00", "fails"]
    assert compiled_cells({}) == ["", "", ""]
    assert compiled_cells({"forward": {"error": ""}}) == ["fails", "fails", ""]


def test_a_shift_of_the_limit_is_printed_in_points() -> None:
    product = {"relative_error": 0.02, "curvature": 2.0, "curvature_bias": -0.01}
    found = {"untrained": product, "trained": product, "limits": {"default": 0.95, "bfloat16": 0.9475}}
    assert rounding_cells(found) == ["2.0e-02", "2.0e-02", "-5.0e-03", "-0.25"]
    assert len(COLUMNS) == len(EXECUTIONS) - 1 + 3 + 4


def test_rounding_is_held_against_float64() -> None:
    work = _work()
    found = rounding(work.model.float(), work.inputs.float(), work.targets)
    assert 1e-4 < found.relative_error < 0.2
