"""Lanczos tridiagonalisation of a symmetric operator with full re-orthogonalisation, as one run or in parts."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from suite.curvature.basis import KrylovBasis, Placement
from suite.curvature.reductions import dot, norm

Matvec = Callable[[Tensor], Tensor]
Progress = Callable[[int, int], None]  # done, total
Status = Literal["complete", "breakdown", "nonfinite"]

# A residual this many roundings of the largest entry of T is rounding. Small on purpose: a missed breakdown only adds
# nodes of negligible quadrature weight, while a false one would hide small eigenvalues behind large ones.
_BREAKDOWN_ROUNDINGS = 10.0
_SAME_PRODUCT = 0.01


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


@dataclass(frozen=True, eq=False)
class Snapshot:
    """All of a run but its basis, as it stands between two steps.

    Attributes:
        diagonal: shape (k,).
        residual_norms: shape (k,), lengths of what each product left outside the Krylov space.
        start_norm: length of the start vector.
        status: see Tridiagonal.
        vectors: shape (1, dim) or (2, dim): what the next basis vector is made of, and the last basis vector where
            the basis holds only a rounded one.
    """

    diagonal: NDArray[np.float64]
    residual_norms: NDArray[np.float64]
    start_norm: float
    status: Status
    vectors: Tensor


class LanczosRun:
    """A Lanczos run from one start vector that can be taken further: the same bits as one run of all the steps.

    Args:
        start: shape (dim,), not zero, of any length; its dtype and device are used for all vectors.
        placement: where the basis lies; None: beside the vectors, in their type.
        basis: storage for the basis, shape (num_rows, dim); the run cannot grow beyond it.

    Raises:
        ValueError: start is zero, not finite or no vector, or basis has another length of rows.

    Cost: see lanczos; a run kept between its parts holds its basis and one vector.
    """

    def __init__(self, start: Tensor, *, placement: Placement | None = None, basis: Tensor | None = None) -> None:
        self.start_norm = _checked_norm(start)
        self.dim = start.shape[0]
        self.status: Status = "complete"
        self.basis = KrylovBasis(self.dim, placement or Placement(start.device, start.dtype), basis)
        self._diagonal: list[float] = []
        self._residual_norms: list[float] = []
        self._largest = 0.0
        self._pending = start  # the next basis vector, not yet of length 1
        self._last: Tensor | None = None  # the last basis vector unrounded, where the basis rounds
        self._exact_basis = self.basis.placement == Placement(start.device, start.dtype)

    @property
    def num_lanczos_steps(self) -> int:
        """Steps that were completed."""
        return len(self._diagonal)

    def extend_to(self, matvec: Matvec, num_lanczos_steps: int, progress: Progress | None = None) -> Tridiagonal:
        """Go on until num_lanczos_steps steps are done, or until breakdown or a product that is not finite.

        Args:
            matvec: v -> A v, the same A at every call.
            num_lanczos_steps: in all, those done before included. Fewer than are done: nothing is computed.
            progress: called with (steps done, num_lanczos_steps) after each step.

        Returns:
            What one run of num_lanczos_steps steps would have returned.

        Raises:
            ValueError: num_lanczos_steps is out of range.
        """
        check_num_lanczos_steps(num_lanczos_steps, self.dim)
        if self.status == "complete":
            self.basis.reserve(num_lanczos_steps)
        while self.status == "complete" and self.num_lanczos_steps < num_lanczos_steps:
            is_finite = self._step(matvec)
            if progress is not None and is_finite:
                progress(self.num_lanczos_steps, num_lanczos_steps)
        return self.tridiagonal(num_lanczos_steps)

    def tridiagonal(self, num_lanczos_steps: int) -> Tridiagonal:
        """Return the projection after at most num_lanczos_steps steps, with the status it had then."""
        k = min(num_lanczos_steps, self.num_lanczos_steps)
        ended = k == self.num_lanczos_steps and (self.status == "breakdown" or num_lanczos_steps > k)
        return Tridiagonal(
            diagonal=np.array(self._diagonal[:k], dtype=np.float64),
            off_diagonal=np.array(self._residual_norms[: max(0, k - 1)], dtype=np.float64),
            residual_norm=self._residual_norms[k - 1] if k else math.nan,
            start_norm=self.start_norm,
            status=self.status if ended else "complete",
        )

    def snapshot(self) -> Snapshot:
        """Return what `restored` needs beside the rows of the basis; the vectors are not copied."""
        vectors = self._pending.unsqueeze(0) if self._last is None else torch.stack([self._pending, self._last])
        values = (np.array(self._diagonal), np.array(self._residual_norms))
        return Snapshot(*values, self.start_norm, self.status, vectors)

    @classmethod
    def restored(cls, snapshot: Snapshot, rows: Tensor, placement: Placement | None = None) -> "LanczosRun":
        """Return the run a snapshot was taken of.

        Args:
            snapshot: its vectors lie where the run goes on.
            rows: of the basis, as KrylovBasis.stored gave them, shape (num_rows, dim).
            placement: as the run had it.
        """
        run = cls(torch.ones_like(snapshot.vectors[0]), placement=placement)
        run.start_norm, run.status = snapshot.start_norm, snapshot.status
        run._diagonal = [float(value) for value in snapshot.diagonal]
        run._residual_norms = [float(value) for value in snapshot.residual_norms]
        entries = zip(run._diagonal, [0.0, *run._residual_norms], run._residual_norms, strict=False)
        run._largest = max((math.hypot(*entry) for entry in entries), default=0.0)
        run._pending = snapshot.vectors[0]
        run._last = None if len(snapshot.vectors) == 1 else snapshot.vectors[1]
        run.basis.restore(rows)
        return run

    def continues(self, matvec: Matvec) -> bool:
        """Return whether a product of the first basis vector is what it was when the run began, to 1 in 100.

        Rounding of the product and of the basis is far below that, another data set far above.

        Cost: one matvec.
        """
        if not self._diagonal:
            return True
        first = self.basis.vector(0, self._pending)
        product = matvec(first)
        single = self.num_lanczos_steps == 1 or self.basis.num_rows == 1
        residual = self._pending if single else self._residual_norms[0] * self.basis.vector(1, self._pending)
        return norm(product - self._diagonal[0] * first - residual) <= _SAME_PRODUCT * norm(product)

    def _step(self, matvec: Matvec) -> bool:
        """Take one step and return whether its product was finite."""
        last = self._last_vector() if self._diagonal else None
        length = self._residual_norms[-1] if self._residual_norms else self.start_norm
        self.basis.append(self._pending, length)
        current = self.basis.row(self.num_lanczos_steps) if self._exact_basis else self._pending / length
        product = matvec(current)
        centre = dot(current, product)
        residual = torch.add(product, current, alpha=-centre)
        if last is not None:
            residual.add_(last, alpha=-self._residual_norms[-1])
        residual_norm = self.basis.orthogonalise(residual)
        if not (math.isfinite(centre) and math.isfinite(residual_norm)):  # as soon as one entry of the product is not
            self.status = "nonfinite"
            return False
        self._diagonal.append(centre)
        self._residual_norms.append(residual_norm)
        self._largest = max(self._largest, math.hypot(centre, *self._residual_norms[-2:]))
        self._pending, self._last = residual, None if self._exact_basis else current
        rounding = _BREAKDOWN_ROUNDINGS * torch.finfo(residual.dtype).eps
        if residual_norm <= rounding * self._largest or self.num_lanczos_steps == self.dim:
            self.status = "breakdown"
        return True

    def _last_vector(self) -> Tensor:
        return self.basis.row(self.num_lanczos_steps - 1) if self._last is None else self._last


def lanczos(
    matvec: Matvec,
    start: Tensor,
    num_lanczos_steps: int,
    *,
    basis: Tensor | None = None,
    placement: Placement | None = None,
    progress: Progress | None = None,
) -> Tridiagonal:
    """Tridiagonalise a symmetric operator on the Krylov space of one start vector.

    Full re-orthogonalisation, twice where once is not enough. Ends early when the Krylov space is exhausted, or when a
    product is not finite: that is an outcome (`status`), not an error.

    Args:
        matvec: v -> A v, shape (dim,) to (dim,), A symmetric. Called once per step.
        start: shape (dim,), not zero, of any length; its dtype and device are used for all vectors.
        num_lanczos_steps: at least 1, at most dim.
        basis: storage for the orthonormal basis, shape (num_lanczos_steps, dim), filled row by row; allocated here
            when None. Pass it to read the basis or to use the memory again.
        placement: where a basis that is allocated here lies; None: beside the vectors.
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
    check_num_lanczos_steps(num_lanczos_steps, _checked_dim(start))
    expected = (num_lanczos_steps, start.shape[0])
    if basis is not None and basis.shape != expected:
        raise ValueError(f"basis has shape {tuple(basis.shape)}. Expected: {expected}.")
    return LanczosRun(start, placement=placement, basis=basis).extend_to(matvec, num_lanczos_steps, progress)


def check_num_lanczos_steps(num_lanczos_steps: int, dim: int) -> None:
    """Refuse a number of steps that no run on an operator of this dimension can have.

    Raises:
        ValueError: it is below 1 or above dim.
    """
    if not 1 <= num_lanczos_steps <= dim:
        size = "large" if num_lanczos_steps > dim else "small"
        raise ValueError(
            f"num_lanczos_steps={num_lanczos_steps} is too {size} for an operator of dimension {dim}. "
            f"Expected: 1 <= num_lanczos_steps <= {dim}."
        )


def _checked_dim(start: Tensor) -> int:
    if start.ndim != 1 or not start.is_floating_point():
        raise ValueError(f"start has shape {tuple(start.shape)} and {start.dtype}. Expected: (dim,), floating point.")
    return start.shape[0]


def _checked_norm(start: Tensor) -> float:
    _checked_dim(start)
    start_norm = norm(start)
    if not (math.isfinite(start_norm) and start_norm > 0.0):
        raise ValueError(f"start has length {start_norm}. Expected: a finite vector that is not zero.")
    return start_norm
