"""Lanczos tridiagonalisation of a symmetric operator with full re-orthogonalisation."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Matvec = Callable[[Tensor], Tensor]
Progress = Callable[[int, int], None]  # done, total
Status = Literal["complete", "breakdown", "nonfinite"]

# A residual this many roundings of the largest entry of T is rounding. Small on purpose: a missed breakdown only adds
# nodes of negligible quadrature weight, while a false one would hide small eigenvalues behind large ones.
_BREAKDOWN_ROUNDINGS = 10.0


@dataclass(frozen=True, eq=False)
class Tridiagonal:
    """The projection T of an operator on the Krylov space of one start vector, in float64.

    Attributes:
        diagonal: shape (k,), in units of the operator.
        off_diagonal: shape (k - 1,), positive; (0,) when k is 0.
        residual_norm: length of what the last product left outside the Krylov space; nan when k is 0.
        start_norm: length of the start vector.
        status: "complete": all steps asked for. "breakdown": the Krylov space is exhausted (also at k = dim), so T is
            exact for this start vector. "nonfinite": a product held NaN or infinity at step k; T ends before it.
    """

    diagonal: NDArray[np.float64]
    off_diagonal: NDArray[np.float64]
    residual_norm: float
    start_norm: float
    status: Status

    @property
    def num_lanczos_steps(self) -> int:
        """Steps that were completed, k."""
        return len(self.diagonal)


def lanczos(
    matvec: Matvec,
    start: Tensor,
    num_lanczos_steps: int,
    *,
    basis: Tensor | None = None,
    progress: Progress | None = None,
) -> Tridiagonal:
    """Tridiagonalise a symmetric operator on the Krylov space of one start vector.

    Full re-orthogonalisation, done twice per step. Ends early when the Krylov space is exhausted, or when a product
    is not finite: that is an outcome (`status`), not an error.

    Args:
        matvec: v -> A v, shape (dim,) to (dim,), A symmetric. Called once per step.
        start: shape (dim,), not zero, of any length; its dtype and device are used for all vectors.
        num_lanczos_steps: at least 1, at most dim.
        basis: storage for the orthonormal basis, shape (num_lanczos_steps, dim), filled row by row; allocated here
            when None. Pass it to read the basis or to use the memory again.
        progress: called with (steps done, num_lanczos_steps) after each step.

    Returns:
        Tridiagonal with k <= num_lanczos_steps. Its entries are in units of A (for a Hessian of a mean loss: nats
        per squared weight unit); scalar products and norms are accumulated in float64 whatever the vectors are.

    Raises:
        ValueError: num_lanczos_steps is out of range, start is zero or not finite, or basis has another shape.

    Cost: k matvecs, k * dim numbers of memory, O(k^2 dim) arithmetic.
    Source: Golub and Meurant (2010), "Matrices, Moments and Quadrature with Applications", section 4.1.
    Differs: full re-orthogonalisation, because the plain recurrence repeats eigenvalues once they have converged.
    """
    start_norm = _checked_norm(start, num_lanczos_steps)
    dim = start.shape[0]
    basis = start.new_empty((num_lanczos_steps, dim)) if basis is None else basis
    if basis.shape != (num_lanczos_steps, dim):
        raise ValueError(f"basis has shape {tuple(basis.shape)}. Expected: ({num_lanczos_steps}, {dim}).")
    rounding = _BREAKDOWN_ROUNDINGS * torch.finfo(start.dtype).eps
    diagonal: list[float] = []
    residual_norms: list[float] = []
    largest = 0.0
    status: Status = "complete"
    basis[0] = start / start_norm
    for step in range(num_lanczos_steps):
        product = matvec(basis[step])
        if not bool(torch.isfinite(product).all()):
            status = "nonfinite"
            break
        centre = _dot(basis[step], product)
        residual = product - centre * basis[step]
        if step > 0:
            residual -= residual_norms[-1] * basis[step - 1]
        _orthogonalise(residual, basis[: step + 1])
        residual_norm = _norm(residual)
        if not math.isfinite(residual_norm):
            status = "nonfinite"
            break
        diagonal.append(centre)
        residual_norms.append(residual_norm)
        largest = max(largest, math.hypot(centre, *residual_norms[-2:]))
        if progress is not None:
            progress(step + 1, num_lanczos_steps)
        if residual_norm <= rounding * largest or step + 1 == dim:
            status = "breakdown"
            break
        if step + 1 < num_lanczos_steps:
            basis[step + 1] = residual / residual_norm
    return Tridiagonal(
        diagonal=np.array(diagonal, dtype=np.float64),
        off_diagonal=np.array(residual_norms[:-1], dtype=np.float64),
        residual_norm=residual_norms[-1] if residual_norms else math.nan,
        start_norm=start_norm,
        status=status,
    )


def _checked_norm(start: Tensor, num_lanczos_steps: int) -> float:
    if start.ndim != 1 or not start.is_floating_point():
        raise ValueError(f"start has shape {tuple(start.shape)} and {start.dtype}. Expected: (dim,), floating point.")
    dim = start.shape[0]
    if not 1 <= num_lanczos_steps <= dim:
        size = "large" if num_lanczos_steps > dim else "small"
        raise ValueError(
            f"num_lanczos_steps={num_lanczos_steps} is too {size} for an operator of dimension {dim}. "
            f"Expected: 1 <= num_lanczos_steps <= {dim}."
        )
    start_norm = _norm(start)
    if not (math.isfinite(start_norm) and start_norm > 0.0):
        raise ValueError(f"start has length {start_norm}. Expected: a finite vector that is not zero.")
    return start_norm


def _orthogonalise(residual: Tensor, basis: Tensor) -> None:
    """Remove from residual its part in the span of the rows of basis, in place; twice is enough (Kahan, Parlett)."""
    for _ in range(2):
        residual.addmv_(basis.T, basis @ residual, alpha=-1.0)


def _dot(first: Tensor, second: Tensor) -> float:
    return float(torch.dot(first.double(), second.double()))


def _norm(vector: Tensor) -> float:
    return float(torch.linalg.vector_norm(vector, dtype=torch.float64))
