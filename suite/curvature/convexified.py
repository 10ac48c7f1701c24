"""A positive semidefinite stand-in for the Hessian: the Gauss-Newton matrix, and what the errors add to it upwards.

H = G + E, where E is the curvature of the network itself, weighted by the errors p - y. Conjugate gradients need a
matrix that bends down nowhere. G has that, but where a penalty keeps errors alive it lacks what E bends upwards. So the
positive Ritz pairs of E from one short Lanczos run are added to G: C = G + Y diag(theta) Y'. A weight that no logit
depends on costs nothing in C, as in H.

It estimates the limit of the actual masks on the Hessian's positive part, and mostly promises too much: E has more
directions than a short run finds. Against dense Hessians, that limit, with G alone, with 32 steps, with all of E's
upper side:

| network, weights | exact | G | 32 steps | all |
|---|---|---|---|---|
| perceptron, ReLU, L1 (quickstart, seed 0), 4,464 | 0.925 | 0.972 | 0.946 | 0.920 |
| CNN of the README, 2,952 | 0.770 | 0.770 | 0.763 | 0.743 |
| perceptron, ReLU, 840 | 0.739 | 0.824 | 0.766 | 0.687 |
| the same, L1 | 0.831 | 0.919 | 0.899 | 0.811 |
| perceptron, GELU, 840 | 0.624 | 0.776 | 0.760 | 0.548 |
| the same, L1 | 0.738 | 0.864 | 0.849 | 0.726 |
| ConvNeXt block and attention, 1,208 | 0.547 | 0.769 | 0.758 | 0.447 |

So where the Hessian can be had whole, it is taken (suite.limits.exact_masks).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from suite.curvature.lanczos import LanczosRun, Progress, Tridiagonal
from suite.curvature.reductions import norm
from suite.curvature.symmetric import CountedOperator, SymmetricOperator

NUM_LANCZOS_STEPS = 32  # 128 come nearer on five of these seven, and cost as much memory as a spectrum does


class Correction(NamedTuple):
    """What E adds to G upwards, as far as it was found: V' M V.

    Attributes:
        basis: orthonormal rows V, shape (k, dim), in the type and on the device of G.
        matrix: M, positive semidefinite, shape (k, k), the same.
    """

    basis: Tensor
    matrix: Tensor


class ConvexifiedOperator(CountedOperator):
    """G + V' M V, positive semidefinite as G is. Products of both matrices for the correction are counted as well."""

    def __init__(self, gauss_newton: SymmetricOperator, correction: Correction) -> None:
        super().__init__(gauss_newton.dim, gauss_newton.dtype, gauss_newton.device)
        self.num_matvecs = 2 * (len(correction.basis) + 1)
        self._gauss_newton, self._correction = gauss_newton, correction

    def _products(self, vectors: Tensor) -> Tensor:
        basis, matrix = self._correction
        return self._gauss_newton.matmat(vectors).add_(basis.T @ (matrix @ (basis @ vectors)))


def convexified(
    hessian: SymmetricOperator,
    gauss_newton: SymmetricOperator,
    weights: Tensor,
    num_lanczos_steps: int = NUM_LANCZOS_STEPS,
) -> ConvexifiedOperator:
    """Return the stand-in for a Hessian; arguments, errors and cost are those of `correction`."""
    return ConvexifiedOperator(gauss_newton, correction(hessian, gauss_newton, weights, num_lanczos_steps))


def correction(
    hessian: SymmetricOperator,
    gauss_newton: SymmetricOperator,
    weights: Tensor,
    num_lanczos_steps: int = NUM_LANCZOS_STEPS,
    progress: Progress | None = None,
) -> Correction:
    """Find what the errors add upwards, by a Lanczos run on E that starts at E w.

    Args:
        hessian: H.
        gauss_newton: G, over the same weights and examples, in the same type and on the same device.
        weights: w, shape (dim,): what is removed is made of them. Where E w is zero, nothing is found.
        num_lanczos_steps: at most; never above dim.
        progress: called with (steps done, steps in all).

    Raises:
        ValueError: a product was not finite.

    Cost: num_lanczos_steps + 1 products of each matrix, num_lanczos_steps numbers of memory per weight, kept.
    Source: what is added: the exact decomposition of a Hessian, Schraudolph (2002); modifying an indefinite Hessian:
        Nocedal and Wright (2006), "Numerical Optimization", section 3.4.
    """

    def errors(vector: Tensor) -> Tensor:
        return hessian.matvec(vector).sub_(gauss_newton.matvec(vector))

    start = errors(weights.to(gauss_newton.device, gauss_newton.dtype))  # what no logit depends on is no part of it
    if not bool(torch.isfinite(start).all()):
        raise ValueError("The products of the weights are not finite. Has the network diverged?")
    if norm(start) == 0.0:
        return Correction(start.new_zeros((0, len(start))), start.new_zeros((0, 0)))
    num_steps = min(num_lanczos_steps, gauss_newton.dim)
    basis = start.new_empty((num_steps, gauss_newton.dim))
    found = LanczosRun(start, basis=basis).extend_to(errors, num_steps, progress)
    if found.status == "nonfinite":
        raise ValueError(f"A product was not finite at step {found.num_lanczos_steps}. Has the network diverged?")
    return Correction(basis[: found.num_lanczos_steps], _positive_part(found).to(start))


def _positive_part(tridiagonal: Tridiagonal) -> Tensor:
    off_diagonal = torch.from_numpy(tridiagonal.off_diagonal)
    projected = torch.diag(torch.from_numpy(tridiagonal.diagonal))
    projected += torch.diag(off_diagonal, 1) + torch.diag(off_diagonal, -1)
    values, vectors = torch.linalg.eigh(projected)
    positive: Tensor = (vectors * values.clamp(min=0.0)) @ vectors.T
    return positive
