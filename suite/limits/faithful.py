"""The published predictor with the published numerics: one probe, a gridded density, whole radii. For comparison only.

Source: Zhang, Zhang, Sun, Liu (2024), NeurIPS, and what their program computes. The formula is gaussian_width's; the
numerics are not. Defects that are known and kept on purpose:

- The kernel's width shrinks against the grid's step as the range of the spectrum grows, so nodes between grid points
  lose their mass: beyond a range of about 10 the limit is wrong, by tenths at a few hundred.
- Radii are rounded to whole numbers, so a network of small weights has few different ones.
- "Important eigenvalues" declare zero what the density already holds near zero.

Use gaussian_width for the published formula, and statistical_dimension to predict.
Differs: a fixed Hessian over the prunable weights and the un-augmented training split, where theirs changes with every
product; a symmetric eigensolver; whole counts, and nothing removed at rate zero, where theirs removes one weight.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from suite.curvature.quadrature import Quadrature
from suite.limits.estimate import check_loss_tolerance
from suite.limits.removal import MagnitudeOrder

NUM_LANCZOS_STEPS = 128
NUM_RATES = 1000
NUM_ROWS = 100  # of the Hessian, one per magnitude percentile
FLAT_ROW_NORM = 1e-7  # a row below it is called flat, in the unit of flat_rows

_NUM_GRID_POINTS = 100_000
_GRID_MARGIN = 0.01  # in eigenvalue units, beyond the outermost nodes
_VARIANCE_PER_RANGE = 1e-10  # named a variance and multiplied by the range as if it were a width
_FLAT_EIGENVALUE = 1e-30
_RATES_PER_FLAT_ROW = 10


@dataclass(frozen=True, eq=False)
class GriddedDensity:
    """A spectrum as the published program holds it.

    Attributes:
        eigenvalues: shape (num_bins,), grid points with a density above zero, growing.
        masses: shape (num_bins,), of sum 1.
    """

    eigenvalues: NDArray[np.float64]
    masses: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FaithfulLimit:
    """The predicted limit and what it was read off.

    Attributes:
        sparsity_limit: the rate, i / 1000, where the curve over the rates comes nearest to the rate itself.
        radii: shape (num_radii,), whole numbers from 0.
        fractions: shape (num_radii,), the squared Gaussian width at each radius, over dim; 1 at 0, falling.
        loss_tolerance_nats: how much the mean loss may rise.
        num_flat_rows: of 100; each declares a hundredth of the spectrum zero.
    """

    sparsity_limit: float
    radii: NDArray[np.float64]
    fractions: NDArray[np.float64]
    loss_tolerance_nats: float
    num_flat_rows: int


def gridded_density(rule: Quadrature) -> GriddedDensity:
    """Smooth the nodes of one probe with Gaussians on 100,000 points and drop the points where nothing is left.

    Something always is: the outermost nodes lie near an end of the grid, or near an inner point.

    Args:
        rule: of one probe; 128 Lanczos steps as published.

    Cost: 100,000 exponentials per node. Measured: 128 nodes 0.1 s.
    """
    lowest, highest = float(rule.nodes.min()), float(rule.nodes.max())
    variance = _VARIANCE_PER_RANGE * max(1.0, highest - lowest)
    grid = np.linspace(lowest - _GRID_MARGIN, highest + _GRID_MARGIN, _NUM_GRID_POINTS)
    density = np.zeros_like(grid)
    for node, mass in zip(rule.nodes, rule.quadrature_weights, strict=True):
        density += mass * np.exp(-((grid - node) ** 2) / (2.0 * variance))
    left = density > 0.0
    return GriddedDensity(grid[left], density[left] / density[left].sum())


def flat_rows(l1_norms: ArrayLike, batch_size: int) -> int:
    """Count the rows that the published program takes for zero eigenvalues ("important" ones).

    Theirs are sums over mini-batches of the batch's mean row, over the number of examples: the norm of the mean row
    divided by the batch size. Their absolute values are taken batch by batch, which this leaves out.

    Args:
        l1_norms: shape (100,), of the mean Hessian's rows, one per magnitude percentile; in nats per squared weight.
        batch_size: of the mini-batches; 128 as published.
    """
    return int(np.count_nonzero(np.asarray(l1_norms, dtype=np.float64) / batch_size < FLAT_ROW_NORM))


def faithful_limit(
    density: GriddedDensity,
    order: MagnitudeOrder,
    loss_tolerance_nats: float,
    largest_radius: float,
    *,
    num_flat_rows: int = 0,
) -> FaithfulLimit:
    """Tabulate the published curve at whole radii and read the limit off a grid of 1,000 rates.

    Args:
        density: from gridded_density.
        order: the prunable weights.
        loss_tolerance_nats: epsilon, how much the mean loss may rise.
        largest_radius: the table's end, rounded down; as published the sum over tensors of their lengths. Never less
            than the rounded length of all weights, which their program could not have looked up.
        num_flat_rows: from flat_rows; 0 for fully connected networks, as published.

    Raises:
        ValueError: loss_tolerance_nats is not positive, or num_flat_rows is not in [0, 100].

    Cost: num_radii * num_bins operations. Measured: 1,000 radii and 10,000 bins 0.02 s.
    """
    check_loss_tolerance(loss_tolerance_nats)
    if not 0 <= num_flat_rows <= NUM_ROWS:
        raise ValueError(f"num_flat_rows={num_flat_rows} is out of range. Expected: 0 to {NUM_ROWS}.")
    num_radii = max(math.floor(largest_radius), round(order.radius(order.dim))) + 1
    radii = np.arange(num_radii, dtype=np.float64)
    flat_share = _RATES_PER_FLAT_ROW * num_flat_rows / NUM_RATES
    fractions = np.array([_fraction(density, radius, loss_tolerance_nats, flat_share) for radius in radii])
    # Rate i removes ceil(i dim / 1000) weights.
    removed = (np.arange(NUM_RATES) * order.dim + NUM_RATES - 1) // NUM_RATES
    rounded = np.rint(np.sqrt(order.squared_radii[removed])).astype(np.intp)
    rates = np.arange(NUM_RATES) / NUM_RATES
    nearest = int(np.argmin(np.abs(fractions[rounded] - rates)))  # the first of several
    return FaithfulLimit(float(rates[nearest]), radii, fractions, loss_tolerance_nats, num_flat_rows)


def _fraction(density: GriddedDensity, radius: float, loss_tolerance_nats: float, flat_share: float) -> float:
    """Return the mean of r^2 / (R^2 + r^2), r^2 = 2 epsilon / |lambda|, with a share of the spectrum declared zero."""
    numerator, squared = 2.0 * loss_tolerance_nats, radius * radius
    curved = float(np.dot(density.masses, numerator / (numerator + np.abs(density.eigenvalues) * squared)))
    flat = numerator / (numerator + _FLAT_EIGENVALUE * squared)
    return (1.0 - flat_share) * curved + flat_share * flat
