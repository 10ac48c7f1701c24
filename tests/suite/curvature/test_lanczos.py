import math

import numpy as np
import pytest
import torch

from suite.curvature.basis import Placement
from suite.curvature.lanczos import LanczosRun, lanczos
from suite.curvature.operators import DiagonalOperator, MatrixOperator
from suite.curvature.quadrature import gauss_quadrature


def _symmetric(dim: int, seed: int) -> torch.Tensor:
    matrix = torch.randn((dim, dim), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return matrix + matrix.T


def _start(dim: int, seed: int = 7) -> torch.Tensor:
    return torch.randn(dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _dense(tridiagonal) -> np.ndarray:
    off = tridiagonal.off_diagonal
    return np.diag(tridiagonal.diagonal) + np.diag(off, 1) + np.diag(off, -1)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_lanczos_identity(seed):
    matrix = _symmetric(40, seed)
    basis = torch.empty((12, 40), dtype=torch.float64)
    tridiagonal = lanczos(MatrixOperator(matrix).matvec, _start(40), 12, basis=basis)
    left = (matrix @ basis.T).numpy() - basis.T.numpy() @ _dense(tridiagonal)  # (40, 12), zero but for the last column
    scale = float(torch.linalg.matrix_norm(matrix, 2))
    assert np.abs(left[:, :-1]).max() < 1e-13 * scale
    assert np.linalg.norm(left[:, -1]) == pytest.approx(tridiagonal.residual_norm, rel=1e-12)
    assert np.abs(basis.numpy() @ left[:, -1]).max() < 1e-13 * scale
    np.testing.assert_allclose((basis @ basis.T).numpy(), np.eye(12), atol=1e-14)
    assert tridiagonal.status == "complete"


def test_as_many_steps_as_dimensions_give_the_exact_eigenvalues():
    matrix = _symmetric(25, 4)
    tridiagonal = lanczos(MatrixOperator(matrix).matvec, _start(25), 25)
    np.testing.assert_allclose(np.linalg.eigvalsh(_dense(tridiagonal)), torch.linalg.eigvalsh(matrix), atol=1e-12)
    assert tridiagonal.status == "breakdown"


def test_moments_of_the_start_vector(network):
    operator = network.operator()
    start = _start(operator.dim)
    unit, tridiagonal = start / start.norm(), lanczos(operator.matvec, start, 6)
    rule = gauss_quadrature(tridiagonal.diagonal, tridiagonal.off_diagonal)
    product = network.hessian() @ unit
    assert np.dot(rule.quadrature_weights, rule.nodes) == pytest.approx(float(unit @ product), rel=1e-10)
    assert np.dot(rule.quadrature_weights, rule.nodes**2) == pytest.approx(float(product @ product), rel=1e-10)
    assert tridiagonal.start_norm == pytest.approx(float(start.norm()), rel=1e-14)


def test_all_steps_on_a_network_give_the_eigenvalues_of_its_hessian(small_mlp):
    operator = small_mlp.operator()
    tridiagonal = lanczos(operator.matvec, _start(operator.dim), operator.dim)
    exact = torch.linalg.eigvalsh(small_mlp.hessian()).numpy()
    # Adding one vector to the last layer's rows of all 3 classes changes no loss: 4 equal eigenvalues of zero, of
    # which one start vector sees one. All others are simple.
    distinct = np.delete(exact, np.argsort(np.abs(exact))[:3])
    assert tridiagonal.status == "breakdown"
    np.testing.assert_allclose(np.linalg.eigvalsh(_dense(tridiagonal)), distinct, atol=1e-12 * np.abs(exact).max())


def test_breakdown_when_few_distinct_eigenvalues_exhaust_the_space():
    eigenvalues = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64).repeat(20)
    operator = DiagonalOperator(eigenvalues)
    tridiagonal = lanczos(operator.matvec, _start(60), 30)
    assert tridiagonal.status == "breakdown"
    assert tridiagonal.num_lanczos_steps == 3
    assert operator.num_matvecs == 3
    np.testing.assert_allclose(np.linalg.eigvalsh(_dense(tridiagonal)), [1.0, 2.0, 5.0], rtol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_zero_operator_breaks_down_at_once(dtype):
    tridiagonal = lanczos(DiagonalOperator(torch.zeros(9, dtype=dtype)).matvec, torch.ones(9, dtype=dtype), 5)
    assert tridiagonal.status == "breakdown"
    assert tridiagonal.diagonal.tolist() == [0.0]
    assert tridiagonal.off_diagonal.shape == (0,)


def test_small_eigenvalues_beside_a_large_one_are_no_breakdown():
    eigenvalues = torch.cat([torch.linspace(1e-9, 1e-8, 99, dtype=torch.float64), torch.tensor([1.0]).double()])
    tridiagonal = lanczos(DiagonalOperator(eigenvalues).matvec, _start(100), 20)
    assert tridiagonal.status == "complete"


def test_orthogonality_survives_converged_eigenvalues():
    eigenvalues = torch.cat([torch.logspace(-4, 0, 300, dtype=torch.float64), torch.tensor([1e3, 2e3]).double()])
    basis = torch.empty((150, 302), dtype=torch.float64)
    tridiagonal = lanczos(DiagonalOperator(eigenvalues).matvec, _start(302), 150, basis=basis)
    np.testing.assert_allclose((basis @ basis.T).numpy(), np.eye(150), atol=1e-13)
    assert np.count_nonzero(np.linalg.eigvalsh(_dense(tridiagonal)) > 500) == 2  # no copies


def test_float32_vectors_give_float64_coefficients_within_rounding():
    matrix = _symmetric(80, 5)
    exact = lanczos(MatrixOperator(matrix).matvec, _start(80), 10)
    single = lanczos(MatrixOperator(matrix.float()).matvec, _start(80).float(), 10)
    assert single.diagonal.dtype == np.float64
    np.testing.assert_allclose(single.diagonal, exact.diagonal, atol=1e-4)
    np.testing.assert_allclose(single.off_diagonal, exact.off_diagonal, atol=1e-4)


def test_more_steps_continue_the_same_run():
    matvec = MatrixOperator(_symmetric(50, 6)).matvec
    few, many = lanczos(matvec, _start(50), 8), lanczos(matvec, _start(50), 20)
    np.testing.assert_allclose(few.diagonal, many.diagonal[:8], rtol=1e-12)
    np.testing.assert_allclose(few.off_diagonal, many.off_diagonal[:7], rtol=1e-12)
    assert few.residual_norm == pytest.approx(many.off_diagonal[7], rel=1e-12)


def test_length_of_the_start_vector_does_not_matter():
    matvec = MatrixOperator(_symmetric(30, 8)).matvec
    one, other = lanczos(matvec, _start(30), 9), lanczos(matvec, 1e-20 * _start(30), 9)
    np.testing.assert_allclose(one.diagonal, other.diagonal, rtol=1e-10)


def test_a_diverged_network_is_an_outcome_and_not_an_error(small_mlp):
    small_mlp.model[2].weight.data[0, 0] = math.nan
    operator = small_mlp.operator()
    tridiagonal = lanczos(operator.matvec, _start(operator.dim), 5)
    assert tridiagonal.status == "nonfinite"
    assert tridiagonal.diagonal.shape == (0,)
    assert tridiagonal.off_diagonal.shape == (0,)
    assert math.isnan(tridiagonal.residual_norm)


def test_a_product_that_fails_later_keeps_the_steps_before():
    operator = MatrixOperator(_symmetric(30, 9))

    def matvec(vector):
        product = operator.matvec(vector)
        return product * math.inf if operator.num_matvecs == 5 else product

    tridiagonal = lanczos(matvec, _start(30), 10)
    whole = lanczos(operator.matvec, _start(30), 10)
    assert tridiagonal.status == "nonfinite"
    np.testing.assert_allclose(tridiagonal.diagonal, whole.diagonal[:4])
    np.testing.assert_allclose(tridiagonal.off_diagonal, whole.off_diagonal[:3])
    assert tridiagonal.residual_norm == pytest.approx(whole.off_diagonal[3])


def test_progress_counts_steps():
    seen = []
    lanczos(
        MatrixOperator(_symmetric(9, 1)).matvec, _start(9), 4, progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize(
    ("start", "steps", "message"),
    [
        (torch.ones(120), 200, "num_lanczos_steps=200 is too large for an operator of dimension 120. "),
        (torch.ones(120), 0, "num_lanczos_steps=0 is too small .* Expected: 1 <= num_lanczos_steps <= 120"),
        (torch.zeros(5), 2, "start has length 0.0"),
        (torch.tensor([1.0, math.nan]), 1, "start has length nan"),
        (torch.ones(5, 1), 1, r"start has shape \(5, 1\)"),
        (torch.ones(5, dtype=torch.long), 1, "floating point"),
    ],
)
def test_calls_that_cannot_work_are_refused(start, steps, message):
    with pytest.raises(ValueError, match=message):
        lanczos(lambda vector: vector, start, steps)


def test_a_basis_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"basis has shape \(2, 5\)\. Expected: \(3, 5\)"):
        lanczos(lambda vector: vector, torch.ones(5), 3, basis=torch.empty(2, 5))


def _equal(first, second):
    assert np.array_equal(first.diagonal, second.diagonal)
    assert np.array_equal(first.off_diagonal, second.off_diagonal)
    assert first.residual_norm == second.residual_norm or (
        math.isnan(first.residual_norm) and math.isnan(second.residual_norm)
    )
    assert (first.start_norm, first.status) == (second.start_norm, second.status)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("stops", [[1, 2, 3], [5, 30], [7, 7, 8, 29, 30]])
def test_a_run_in_parts_has_the_bits_of_one_run(dtype, stops):
    operator, start = MatrixOperator(_symmetric(200, 11).to(dtype)), _start(200).to(dtype)
    run = LanczosRun(start)
    for stop in stops:
        _equal(run.extend_to(operator.matvec, stop), lanczos(operator.matvec, start, stop))
    assert operator.num_matvecs == stops[-1] + sum(stops)  # the run itself paid for no step twice


def test_fewer_steps_than_are_done_cost_nothing():
    operator = MatrixOperator(_symmetric(60, 12))
    run = LanczosRun(_start(60))
    run.extend_to(operator.matvec, 20)
    _equal(run.extend_to(operator.matvec, 9), lanczos(MatrixOperator(_symmetric(60, 12)).matvec, _start(60), 9))
    assert operator.num_matvecs == 20


def test_a_run_that_ended_early_says_so_only_where_it_ended():
    operator = DiagonalOperator(torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64).repeat(20))
    run = LanczosRun(_start(60))
    assert [run.extend_to(operator.matvec, steps).status for steps in (2, 3, 9, 2)] == [
        "complete",
        "breakdown",
        "breakdown",
        "complete",
    ]
    assert operator.num_matvecs == 3


def test_a_product_that_fails_ends_a_run_for_good():
    operator = MatrixOperator(_symmetric(30, 9))

    def matvec(vector):
        product = operator.matvec(vector)
        return product * math.inf if operator.num_matvecs == 5 else product

    run = LanczosRun(_start(30))
    assert run.extend_to(matvec, 4).status == "complete"
    assert [run.extend_to(matvec, steps).status for steps in (10, 20)] == ["nonfinite", "nonfinite"]
    assert run.extend_to(matvec, 4).status == "complete"
    assert operator.num_matvecs == 5


@pytest.mark.parametrize("placement", [None, Placement(torch.device("cpu"), torch.float16)])
def test_a_restored_run_goes_on_with_the_same_bits(placement):
    operator, start = MatrixOperator(_symmetric(90, 13).float()), _start(90).float()
    whole, part = LanczosRun(start, placement=placement), LanczosRun(start, placement=placement)
    part.extend_to(operator.matvec, 11)
    rows = part.basis.stored(0, part.basis.num_rows).clone()
    restored = LanczosRun.restored(part.snapshot(), rows, placement)
    _equal(restored.extend_to(operator.matvec, 40), whole.extend_to(operator.matvec, 40))


def test_another_operator_does_not_continue_a_run():
    operator = MatrixOperator(_symmetric(90, 13))
    run = LanczosRun(_start(90))
    assert run.continues(operator.matvec)  # nothing is done yet
    for steps in (1, 2, 12):
        run.extend_to(operator.matvec, steps)
        assert run.continues(operator.matvec)
        assert not run.continues(MatrixOperator(_symmetric(90, 14)).matvec)
