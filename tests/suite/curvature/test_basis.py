import logging

import numpy as np
import pytest
import torch

from suite.curvature.basis import KrylovBasis, Placement, choose_placement, rows_reserved
from suite.curvature.lanczos import LanczosRun
from suite.curvature.operators import MatrixOperator
from suite.curvature.quadrature import gauss_quadrature

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def _rows(num_rows: int, dim: int, seed: int = 0) -> torch.Tensor:
    draw = torch.randn((dim, num_rows), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.linalg.qr(draw)[0].T.contiguous()


def _filled(rows: torch.Tensor, placement: Placement) -> KrylovBasis:
    basis = KrylovBasis(rows.shape[1], placement)
    for row in rows:
        basis.append(row)
    return basis


def test_a_grown_basis_holds_its_rows():
    rows = _rows(40, 60)
    basis = _filled(rows, Placement(CPU, torch.float64))
    assert torch.equal(basis.stored(0, 40), rows)
    assert basis.num_bytes >= 40 * 60 * 8


def test_growing_copies_no_row_and_changes_no_bit():
    rows, vector = _rows(40, 60), torch.randn(60, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    grown, whole = KrylovBasis(60, Placement(CPU, torch.float64)), KrylovBasis(60, Placement(CPU, torch.float64))
    whole.reserve(40)
    for index, row in enumerate(rows):
        if index == 20:
            places = [grown.row(each).data_ptr() for each in range(20)]
        grown.append(row)
        whole.append(row)
    assert [grown.row(each).data_ptr() for each in range(20)] == places
    assert grown.num_bytes == whole.num_bytes == rows_reserved(40) * 60 * 8
    results = vector.clone(), vector.clone()
    assert grown.orthogonalise(results[0]) == whole.orthogonalise(results[1])
    assert torch.equal(*results)
    assert (rows_reserved(1), rows_reserved(8), rows_reserved(9)) == (8, 8, 16)


def test_what_is_left_is_orthogonal_to_all_rows():
    rows, vector = _rows(40, 60), torch.ones(60, dtype=torch.float64)
    left = vector.clone()
    length = _filled(rows, Placement(CPU, torch.float64)).orthogonalise(left)
    assert length == pytest.approx(float(left.norm()), rel=1e-14)
    np.testing.assert_allclose((rows @ left).numpy(), 0.0, atol=1e-14)
    torch.testing.assert_close(left, vector - rows.T @ (rows @ vector))


@pytest.mark.parametrize(("outside", "passes"), [(2.0, 1), (0.5, 2), (1e-6, 2)])
def test_a_second_pass_where_most_was_removed(outside, passes, monkeypatch):
    rows = _rows(41, 60)
    inside, across = rows[:40].T @ torch.full((40,), 40**-0.5, dtype=torch.float64), rows[40]
    basis, left = _filled(rows[:40], Placement(CPU, torch.float64)), inside + outside * across
    done, remove = [], basis._remove
    monkeypatch.setattr(basis, "_remove", lambda residual: (done.append(1), remove(residual))[1])
    assert basis.orthogonalise(left) == pytest.approx(outside, rel=1e-8)
    assert len(done) == passes
    np.testing.assert_allclose((rows[:40] @ left).numpy() / outside, 0.0, atol=1e-14)


def test_a_rounded_basis_leaves_its_rounding_over_the_root_of_the_dimension():
    rows = _rows(30, 20_000)
    vector = torch.randn(20_000, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    left = vector.clone()
    _filled(rows, Placement(CPU, torch.float16)).orthogonalise(left)
    assert float((rows @ left).abs().max() / vector.norm()) < 4 * 2**-11 / 20_000**0.5


def test_storage_that_was_given_does_not_grow():
    basis = KrylovBasis(3, Placement(CPU, torch.float64), torch.empty((1, 3), dtype=torch.float64))
    basis.append(torch.ones(3))
    with pytest.raises(ValueError, match="basis has 1 rows, 2 are needed"):
        basis.append(torch.ones(3))


def test_parking_changes_nothing_on_the_cpu():
    basis = _filled(_rows(4, 9), Placement(CPU, torch.float64))
    basis.park()
    basis.unpark()
    assert torch.equal(basis.stored(0, 4), _rows(4, 9))


def test_on_the_cpu_a_basis_always_lies_beside_the_vectors():
    assert choose_placement(10**9, 10**6, torch.float32, CPU) == Placement(CPU, torch.float32)


@pytest.mark.parametrize(
    ("device_gib", "host_gib", "device", "dtype"),
    [(24, 0, GPU, torch.float32), (12, 64, CPU, torch.float32), (12, 16, GPU, torch.float16)],
)
def test_a_basis_goes_where_it_fits_and_the_log_says_so(device_gib, host_gib, device, dtype, caplog):
    caplog.set_level(logging.INFO)
    room = {"device_bytes": device_gib * 2.0**30, "host_bytes": host_gib * 2.0**30}
    assert choose_placement(23_700_000, 256, torch.float32, GPU, **room) == Placement(device, dtype)
    assert ("Krylov basis of 256 x 23700000: 22.6 GiB do not fit" in caplog.text) == (device_gib == 12)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_rounded_basis_hardly_moves_an_integral(seed):
    """With spread eigenvectors, as a network's are. Unit vectors for eigenvectors round badly: off by up to 0.1."""
    draw = torch.Generator().manual_seed(seed)
    spectrum = torch.cat([torch.logspace(-4, -1, 780), torch.logspace(-1, 1, 20)]).double()
    vectors = torch.linalg.qr(torch.randn((800, 800), generator=draw, dtype=torch.float64))[0]
    matrix, start = (vectors * spectrum) @ vectors.T, torch.randn(800, generator=draw)

    def integral(dtype: torch.dtype, placed: torch.dtype) -> float:
        run = LanczosRun(start.to(dtype), placement=Placement(CPU, placed))
        tridiagonal = run.extend_to(MatrixOperator(matrix.to(dtype)).matvec, 96)
        rule = gauss_quadrature(tridiagonal.diagonal, tridiagonal.off_diagonal)
        return float(rule.quadrature_weights @ (1e-2 / (1e-2 + np.abs(rule.nodes))))

    exact = integral(torch.float64, torch.float64)
    assert integral(torch.float32, torch.float32) == pytest.approx(exact, abs=1e-5)
    assert integral(torch.float32, torch.float16) == pytest.approx(exact, abs=1e-3)
