"""Further quadrature rules of one Lanczos run: they cost no product, and disagree by how much the run still lacks.

For 1 / (1 + theta lambda), lambda >= 0, all even derivatives are positive and all odd ones negative. So the Gauss rule
is too small and the Gauss-Radau rule with a node at 0 too large, and both move monotonically with the steps (Golub and
Meurant 2010, "Matrices, Moments and Quadrature with Applications", theorems 6.4 and 6.5). numpy and scipy only.
"""

import numpy as np
from scipy.linalg import solve_banded

from suite.curvature.quadrature import FloatArray, Quadrature, gauss_quadrature

_SINGULAR = 1e-14  # against the largest entry: as far as a node is moved off a Ritz value it coincides with


def radau_quadrature(
    diagonal: FloatArray, off_diagonal: FloatArray, residual_norm: float, node: float = 0.0
) -> Quadrature:
    """Return the Gauss-Radau rule with one prescribed node: exact for polynomials up to degree 2k.

    Args:
        diagonal: shape (k,), k >= 1.
        off_diagonal: shape (k - 1,).
        residual_norm: of the last step; 0 where the run broke down, whose Gauss rule is exact and is returned.
        node: at or outside an end of the spectrum for a bound. Inside, the rule still holds (positive weights, the
            same exactness) but bounds nothing. A node that coincides with a Ritz value is moved by rounding.

    Returns:
        k + 1 nodes, growing, one of them the prescribed one to rounding.

    Raises:
        ValueError: as gauss_quadrature.

    Cost: one tridiagonal solve and one tridiagonal eigenproblem, O(k^2).
    Source: Golub (1973), "Some modified matrix eigenvalue problems", SIAM Review 15.
    """
    if residual_norm == 0.0:
        return gauss_quadrature(diagonal, off_diagonal)
    last = node + residual_norm**2 * _last_of_inverse(diagonal, off_diagonal, node)
    return gauss_quadrature(np.append(diagonal, last), np.append(off_diagonal, residual_norm))


def averaged_quadrature(diagonal: FloatArray, off_diagonal: FloatArray, residual_norm: float) -> Quadrature:
    """Return the optimal averaged Gauss rule: exact up to degree 2k, and for smooth functions far beyond.

    The tridiagonal is continued by its own mirror image, as if the recurrence went on as it came.

    Args:
        diagonal: shape (k,), k >= 1.
        off_diagonal: shape (k - 1,).
        residual_norm: of the last step; 0 where the run broke down, whose Gauss rule is exact and is returned.

    Returns:
        2 k - 1 nodes, growing; the outermost may lie outside the spectrum, which for a positive semi-definite operator
        makes the rule worse than the Gauss rule once that has converged.

    Raises:
        ValueError: as gauss_quadrature.

    Source: Spalevic (2007), "On generalized averaged Gaussian formulas", Mathematics of Computation 76; it raises the
        exactness of Laurie (1996), "Anti-Gaussian quadrature formulas", Mathematics of Computation 65.
    """
    if residual_norm == 0.0 or len(diagonal) < 2:
        return gauss_quadrature(diagonal, off_diagonal)
    mirrored = np.concatenate([diagonal, diagonal[-2::-1]])
    couplings = np.concatenate([off_diagonal, [residual_norm], off_diagonal[-2::-1]])
    return gauss_quadrature(mirrored, couplings[: len(mirrored) - 1])


def _last_of_inverse(diagonal: FloatArray, off_diagonal: FloatArray, node: float) -> float:
    """Return the last entry of (T - node)^-1, node moved down by rounding where T - node is singular."""
    scale = float(np.abs(diagonal).max() + (np.abs(off_diagonal).max() if len(off_diagonal) else 0.0)) or 1.0
    banded = np.zeros((3, len(diagonal)))
    banded[0, 1:], banded[2, :-1] = off_diagonal, off_diagonal
    right = np.zeros(len(diagonal))
    right[-1] = 1.0
    for shift in (0.0, _SINGULAR, 100 * _SINGULAR):
        banded[1] = diagonal - node + shift * scale
        try:
            with np.errstate(divide="ignore", invalid="ignore"):
                solution = solve_banded((1, 1), banded, right)
        except np.linalg.LinAlgError:
            continue
        if np.isfinite(solution[-1]):
            return float(solution[-1])
    return 0.0
