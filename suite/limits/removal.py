"""Which weights go first: global order of magnitude, exact counts, and the length of what is removed."""

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, eq=False)
class MagnitudeOrder:
    """Prunable weights with the order in which magnitude pruning removes them. Build it with `of`.

    Attributes:
        weights: shape (dim,), float64.
        order: shape (dim,), coordinates by growing |w|; among equals the higher index goes first, as in every mask.
        squared_radii: shape (dim + 1,), sum of squares of the first n removed weights at n.
    """

    weights: NDArray[np.float64]
    order: NDArray[np.intp]
    squared_radii: NDArray[np.float64]

    @classmethod
    def of(cls, weights: ArrayLike) -> "MagnitudeOrder":
        """Order a flat vector of weights.

        Args:
            weights: shape (dim,), dim >= 1, finite.

        Raises:
            ValueError: another shape, or NaN or infinite weights.

        Cost: one sort, 24 * dim bytes.
        """
        values = np.array(weights, dtype=np.float64)
        if values.ndim != 1 or values.size == 0:
            raise ValueError(f"weights have shape {values.shape}. Expected: (dim,) with dim >= 1.")
        num_nonfinite = int(np.count_nonzero(~np.isfinite(values)))
        if num_nonfinite:
            raise ValueError(f"{num_nonfinite} of {values.size} weights are NaN or infinite. Expected: finite weights.")
        # suite.pruning.masks.order_of_removal, without torch
        order = np.ascontiguousarray(np.argsort(-np.abs(values), kind="stable")[::-1])
        squared_radii = np.concatenate([[0.0], np.cumsum(values[order] ** 2)])
        return cls(values, order, squared_radii)

    @property
    def dim(self) -> int:
        """Number of prunable weights."""
        return len(self.weights)

    @property
    def num_zero_weights(self) -> int:
        """Weights that are exactly zero: removing them changes nothing."""
        return self.dim - int(np.count_nonzero(self.weights))

    def num_removed(self, sparsity: float | Fraction) -> int:
        """Return ceil(sparsity * dim); see num_removed."""
        return num_removed(sparsity, self.dim)

    def count_near(self, limit: float) -> int:
        """Return the count nearest to a limit at which the removed weights are not all zero; all, where they are."""
        return min(max(round(limit * self.dim), self.num_zero_weights + 1), self.dim)

    def radius(self, num_removed: int) -> float:
        """Return R, the Euclidean length of the removed weights."""
        return math.sqrt(self.squared_radii[self._checked(num_removed)])

    def removed(self, num_removed: int) -> NDArray[np.float64]:
        """Return Delta, shape (dim,): the removed weights in their places, zero elsewhere."""
        delta = np.zeros_like(self.weights)
        indices = self.order[: self._checked(num_removed)]
        delta[indices] = self.weights[indices]
        return delta

    def _checked(self, num_removed: int) -> int:
        if not 0 <= num_removed <= self.dim:
            raise ValueError(f"num_removed={num_removed} is out of range. Expected: 0 <= num_removed <= {self.dim}.")
        return num_removed


def num_removed(sparsity: float | Fraction, dim: int) -> int:
    """Return ceil(sparsity * dim) for the decimal number a user wrote.

    A float stands for its shortest decimal form: 0.95 of 100 is 95, although the binary number 0.95 is below 19/20,
    and 0.07 of 100 is 7, although 0.07 * 100 is above 7 in binary.

    Args:
        sparsity: fraction removed, in [0, 1].
        dim: number of prunable weights.

    Raises:
        ValueError: sparsity is not in [0, 1].
    """
    if not 0 <= sparsity <= 1:  # also refuses NaN
        repair = f" Did you mean {float(sparsity) / 100:g}?" if 1 < sparsity <= 100 else ""
        raise ValueError(f"sparsity={sparsity} is not a fraction in [0, 1].{repair}")
    exact = sparsity if isinstance(sparsity, Fraction) else Fraction(str(sparsity))
    return math.ceil(exact * dim)
