"""Spectral measures as nodes and quadrature weights: integrals over a spectrum, and curves for pictures.

numpy and scipy only, so that reports can read stored spectra without torch.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import eigh_tridiagonal

FloatArray = NDArray[np.float64]
SpectralFunction = Callable[[FloatArray], FloatArray]  # vectorised over eigenvalues

# Nodes this small against the largest are zero as far as a smoothed picture can tell; Lanczos in float32 returns
# exact zero eigenvalues with about this error.
_ZERO_TOLERANCE = 1e-6
_BANDWIDTH_FRACTION = 1 / 200  # of the range of the spectrum; a guess that shows outliers as separate peaks
_GRID_STEPS_PER_BANDWIDTH = 4


@dataclass(frozen=True, eq=False)
class Quadrature:
    """A discrete probability measure on the spectrum.

    Attributes:
        nodes: shape (k,), in the operator's units.
        quadrature_weights: shape (k,), not negative, of sum 1.
    """

    nodes: FloatArray
    quadrature_weights: FloatArray


@dataclass(frozen=True, eq=False)
class SpectralMeasure:
    """The mean of one or several quadratures.

    Attributes:
        quadratures: one per probe.
        sampled: True when each quadrature comes from an independent random probe. False for a measure with nothing
            random in it (exact eigenvalues, or a run from a given vector): its standard errors are 0.
    """

    quadratures: tuple[Quadrature, ...]
    sampled: bool = True

    def __post_init__(self) -> None:
        """Check that there is something to integrate.

        Raises:
            ValueError: there is no quadrature.
        """
        if not self.quadratures:
            raise ValueError("A spectral measure needs at least 1 quadrature, got 0.")

    def values(self, function: SpectralFunction) -> FloatArray:
        """Return the integral of a vectorised function per probe, shape (num_probes,)."""
        return np.array([float(np.dot(rule.quadrature_weights, function(rule.nodes))) for rule in self.quadratures])

    def integrate(self, function: SpectralFunction) -> tuple[float, float]:
        """Return the integral of a vectorised function and its standard error over probes.

        The standard error is 0 when nothing was sampled and nan for a single random probe.
        """
        values = self.values(function)
        return float(values.mean()), standard_error(values, sampled=self.sampled)

    def mapped(self, function: SpectralFunction) -> "SpectralMeasure":
        """Return the measure of function(eigenvalue): nodes moved, quadrature weights kept."""
        rules = tuple(Quadrature(function(rule.nodes), rule.quadrature_weights) for rule in self.quadratures)
        return SpectralMeasure(rules, self.sampled)

    def pooled(self) -> Quadrature:
        """Return the mean measure as one quadrature with growing nodes."""
        nodes = np.concatenate([rule.nodes for rule in self.quadratures])
        masses = np.concatenate([rule.quadrature_weights for rule in self.quadratures]) / len(self.quadratures)
        order = np.argsort(nodes, kind="stable")
        return Quadrature(nodes[order], masses[order])


@dataclass(frozen=True, eq=False)
class SpectralDensity:
    """A smoothed spectrum, for pictures alone.

    Attributes:
        grid: abscissae, growing, in eigenvalue units.
        values: density on the grid, in 1 / eigenvalue units; integrates to 1 - mass_at_zero.
        bandwidth: standard deviation of the Gaussian kernel, in eigenvalue units.
        mass_at_zero: the fraction of eigenvalues left out of the curve because they are zero to plotting accuracy.
    """

    grid: FloatArray
    values: FloatArray
    bandwidth: float
    mass_at_zero: float


def gauss_quadrature(diagonal: ArrayLike, off_diagonal: ArrayLike) -> Quadrature:
    """Return the Gauss rule of a Lanczos tridiagonal: exact for polynomials up to degree 2k - 1.

    Args:
        diagonal: shape (k,), k >= 1.
        off_diagonal: shape (k - 1,).

    Returns:
        k nodes (the Ritz values, growing) and the squared first components of the eigenvectors.

    Raises:
        ValueError: the shapes do not fit, k is 0, or an entry is not finite.

    Cost: O(k^3).
    Source: Golub and Welsch (1969), "Calculation of Gauss quadrature rules", Math. Comp. 23.
    """
    alphas, betas = np.asarray(diagonal, dtype=np.float64), np.asarray(off_diagonal, dtype=np.float64)
    if alphas.ndim != 1 or betas.ndim != 1 or len(alphas) != len(betas) + 1:
        raise ValueError(f"Shapes {alphas.shape} and {betas.shape} make no tridiagonal. Expected: (k,) and (k - 1,).")
    if not (np.isfinite(alphas).all() and np.isfinite(betas).all()):
        raise ValueError("The tridiagonal holds NaN or infinity. Expected: finite entries.")
    # QR iteration: first components come out to full absolute accuracy even where the off-diagonal nearly vanishes.
    nodes, vectors = eigh_tridiagonal(alphas, betas, lapack_driver="stev")
    quadrature_weights = vectors[0] ** 2
    return Quadrature(nodes, quadrature_weights / quadrature_weights.sum())


def measure_of_tridiagonals(pairs: Iterable[tuple[ArrayLike, ArrayLike]]) -> SpectralMeasure:
    """Return the sampled measure of stored (diagonal, off_diagonal) pairs, one per random probe."""
    return SpectralMeasure(tuple(gauss_quadrature(diagonal, off_diagonal) for diagonal, off_diagonal in pairs))


def atoms(eigenvalues: ArrayLike, masses: ArrayLike | None = None) -> SpectralMeasure:
    """Return the exact measure of known eigenvalues.

    Args:
        eigenvalues: shape (n,).
        masses: shape (n,), not negative, of sum 1 (to 1e-6, then made exact); equal when None.

    Raises:
        ValueError: the shapes differ, a value is not finite, or the masses are no probability.
    """
    nodes = np.asarray(eigenvalues, dtype=np.float64)
    if nodes.ndim != 1 or not len(nodes) or not np.isfinite(nodes).all():
        raise ValueError(f"eigenvalues of shape {nodes.shape}. Expected: (n,) finite values, n >= 1.")
    probabilities = np.full(len(nodes), 1.0 / len(nodes)) if masses is None else np.asarray(masses, dtype=np.float64)
    total = float(probabilities.sum())
    if probabilities.shape != nodes.shape or not (probabilities >= 0.0).all() or not abs(total - 1.0) < 1e-6:
        raise ValueError(
            f"masses of shape {probabilities.shape} and sum {total}. Expected: {nodes.shape}, >= 0, sum 1."
        )
    return SpectralMeasure((Quadrature(nodes, probabilities / total),), sampled=False)


def standard_error(values: FloatArray, *, sampled: bool = True) -> float:
    """Return the standard error of the mean of independent values: nan for one value, 0 when nothing was sampled."""
    if not sampled:
        return 0.0
    if len(values) < 2:
        return math.nan
    return float(np.std(values, ddof=1) / math.sqrt(len(values)))


def spectral_density(
    measure: SpectralMeasure, grid: ArrayLike | None = None, bandwidth: float | None = None
) -> SpectralDensity:
    """Smooth a measure with a Gaussian kernel, for pictures; no limit is computed from it.

    Eigenvalues that are zero to 1e-6 of the largest are counted in `mass_at_zero` and left out of the curve, whose
    peak at zero would otherwise flatten all the rest.

    Args:
        measure: any.
        grid: abscissae; by default the range of the spectrum and 4 bandwidths beyond, in quarters of a bandwidth.
        bandwidth: standard deviation of the kernel in eigenvalue units; by default 1/200 of the range of the
            spectrum, zero included.

    Raises:
        ValueError: bandwidth is not positive.

    Cost: number of nodes times number of grid points.
    """
    rule = measure.pooled()
    scale = float(np.abs(rule.nodes).max())
    is_zero = np.abs(rule.nodes) <= _ZERO_TOLERANCE * scale
    lowest, highest = min(0.0, float(rule.nodes.min())), max(0.0, float(rule.nodes.max()))
    width = (highest - lowest or 1.0) * _BANDWIDTH_FRACTION if bandwidth is None else bandwidth
    if not width > 0.0:
        raise ValueError(f"bandwidth={bandwidth} is not positive. Expected: a width in eigenvalue units.")
    if grid is None:
        num_steps = math.ceil(_GRID_STEPS_PER_BANDWIDTH * ((highest - lowest) / width + 8))
        abscissae = np.linspace(lowest - 4 * width, highest + 4 * width, num_steps + 1)
    else:
        abscissae = np.asarray(grid, dtype=np.float64)
    nodes, masses = rule.nodes[~is_zero], rule.quadrature_weights[~is_zero]
    values = np.zeros_like(abscissae)
    for node, mass in zip(nodes, masses, strict=True):
        values += mass * np.exp(-0.5 * ((abscissae - node) / width) ** 2)
    values /= width * math.sqrt(2.0 * math.pi)
    return SpectralDensity(abscissae, values, width, float(rule.quadrature_weights[is_zero].sum()))


def cumulative(measure: SpectralMeasure, grid: ArrayLike) -> FloatArray:
    """Return the fraction of eigenvalues at or below each grid value; needs no bandwidth. Shape as grid."""
    rule = measure.pooled()
    heights = np.concatenate([[0.0], np.cumsum(rule.quadrature_weights)])
    num_below = np.searchsorted(rule.nodes, np.asarray(grid, dtype=np.float64), side="right")
    fractions: FloatArray = np.minimum(heights[num_below], 1.0)
    return fractions
