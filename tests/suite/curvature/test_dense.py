import numpy as np
import pytest
import torch

from suite.curvature.dense import dense_hessian, eigendecomposition
from suite.curvature.operators import DiagonalOperator, MatrixOperator


def _symmetric(dim: int, seed: int = 1) -> torch.Tensor:
    matrix = torch.randn((dim, dim), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return matrix + matrix.T


@pytest.mark.parametrize("block_size", [7, 64, 1000])
def test_dense_hessian_equals_autograd(network, block_size):
    operator = network.operator()
    hessian = dense_hessian(operator, block_size=block_size)
    torch.testing.assert_close(hessian, network.hessian(), rtol=1e-10, atol=1e-12)
    assert torch.equal(hessian, hessian.T)
    assert operator.num_matvecs == 1 + int((hessian != 0).any(dim=1).sum())


def test_dense_hessian_of_a_float32_operator_is_float64(small_mlp):
    hessian = dense_hessian(small_mlp.operator(torch.float32))
    assert hessian.dtype == torch.float64
    torch.testing.assert_close(hessian, small_mlp.hessian(), rtol=1e-4, atol=1e-6)


def test_decomposition_reconstructs():
    matrix = _symmetric(30)
    parts = eigendecomposition(matrix)
    vectors = parts.eigenvectors
    torch.testing.assert_close(vectors * parts.eigenvalues @ vectors.T, matrix, rtol=0, atol=1e-12)
    assert parts.num_zero_rows == 0


def test_zero_rows_are_taken_out_exactly():
    matrix = torch.zeros((40, 40), dtype=torch.float64)
    active = torch.randperm(40, generator=torch.Generator().manual_seed(2))[:25].sort().values
    matrix[active[:, None], active] = _symmetric(25)
    parts = eigendecomposition(matrix)
    assert parts.num_zero_rows == 15
    assert int((parts.eigenvalues == 0).sum()) == 15
    assert (parts.eigenvalues.diff() >= 0).all()
    vectors = parts.eigenvectors
    torch.testing.assert_close(vectors.T @ vectors, torch.eye(40, dtype=torch.float64), rtol=0, atol=1e-13)
    torch.testing.assert_close(matrix @ vectors, vectors * parts.eigenvalues, rtol=0, atol=1e-12)
    np.testing.assert_allclose(parts.eigenvalues, np.linalg.eigvalsh(matrix), atol=1e-12)


def test_a_zero_matrix_has_zero_eigenvalues():
    parts = eigendecomposition(torch.zeros((6, 6), dtype=torch.float64))
    assert parts.num_zero_rows == 6
    assert torch.equal(parts.eigenvectors.T @ parts.eigenvectors, torch.eye(6, dtype=torch.float64))


def test_dead_units_leave_exactly_zero_rows(small_mlp):
    model = small_mlp.model
    model[1] = torch.nn.ReLU()
    model[0].bias.data[:2] = -1e3  # these two never fire
    hessian = dense_hessian(small_mlp.operator())
    parts = eigendecomposition(hessian)
    assert parts.num_zero_rows >= 2 * 5 + 2 * 4  # their incoming and outgoing weights
    np.testing.assert_allclose(parts.eigenvalues, np.linalg.eigvalsh(hessian), atol=1e-12)


def test_large_matrices_are_refused_before_any_product():
    operator = DiagonalOperator(torch.ones(12_001))
    with pytest.raises(ValueError, match=r"dim=12001 is too large for a dense matrix \(1\.1 GiB each\)"):
        dense_hessian(operator)
    assert operator.num_matvecs == 0
    with pytest.raises(ValueError, match="Expected: dim <= 5"):
        eigendecomposition(_symmetric(6), max_dim=5)


def test_matrices_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="square"):
        eigendecomposition(torch.zeros(3, 4, dtype=torch.float64))
    with pytest.raises(ValueError, match="NaN or infinity"):
        eigendecomposition(torch.full((2, 2), torch.nan, dtype=torch.float64))


def test_progress_counts_columns():
    seen = []
    dense_hessian(MatrixOperator(_symmetric(10)), block_size=4, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(4, 10), (8, 10), (10, 10)]


def test_zero_rows_cost_no_product():
    matrix = torch.randn(30, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    matrix = matrix + matrix.T
    matrix[[3, 17, 29]] = 0.0
    matrix[:, [3, 17, 29]] = 0.0
    operator = MatrixOperator(matrix)
    assert torch.equal(dense_hessian(operator, block_size=8), matrix)
    assert operator.num_matvecs == 28


def test_a_zero_matrix_needs_one_product():
    operator = MatrixOperator(torch.zeros(5, 5, dtype=torch.float64))
    assert torch.equal(dense_hessian(operator), torch.zeros(5, 5, dtype=torch.float64))
    assert operator.num_matvecs == 1
