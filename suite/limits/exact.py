"""Both predictors from all eigenvalues and eigenvectors: the oracle beside the estimates. For small networks."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from suite.curvature.quadrature import SpectralMeasure, atoms
from suite.limits.curvature_treatment import Curvature
from suite.limits.estimate import LimitEstimate
from suite.limits.gaussian_width import gaussian_width_limit
from suite.limits.removal import MagnitudeOrder
from suite.limits.statistical_dimension import DeltaMeasure, DeltaRuns, statistical_dimension_limit


@dataclass(frozen=True)
class ExactLimits:
    """Both limits of one quadratic model; only the random-subspace model is left as an approximation."""

    gaussian_width: LimitEstimate
    statistical_dimension: LimitEstimate


def exact_limits(
    eigenvalues: ArrayLike,
    delta_measure: DeltaMeasure,
    order: MagnitudeOrder,
    loss_tolerance_nats: float,
    *,
    gaussian_width_curvature: Curvature = "abs",
    statistical_dimension_curvature: Curvature = "positive",
) -> ExactLimits:
    """Compute both limits, to the single weight, from an exact spectrum.

    Args:
        eigenvalues: shape (dim,), of the Hessian over the prunable weights.
        delta_measure: from exact_delta_measure; shared between tolerances it is computed once per count.
        order: the prunable weights.
        loss_tolerance_nats: epsilon, how much the mean loss may rise.
        gaussian_width_curvature: as published.
        statistical_dimension_curvature: see statistical_dimension_limit.

    Raises:
        ValueError: the number of eigenvalues is not the number of weights, or loss_tolerance_nats is not positive.

    Cost: about 10 products of dim^2 operations.
    """
    measure = atoms(eigenvalues)
    num_eigenvalues = len(measure.quadratures[0].nodes)
    if num_eigenvalues != order.dim:
        raise ValueError(f"{num_eigenvalues} eigenvalues for {order.dim} weights. Expected: one per weight.")
    return ExactLimits(
        gaussian_width_limit(measure, order, loss_tolerance_nats, curvature=gaussian_width_curvature),
        statistical_dimension_limit(
            measure,
            order,
            loss_tolerance_nats,
            delta_measure,
            curvature=statistical_dimension_curvature,
            resolution=0.0,
        ),
    )


def exact_delta_measure(eigenvalues: ArrayLike, eigenvectors: ArrayLike, order: MagnitudeOrder) -> DeltaRuns:
    """Return the exact spectral measures of removed weights: mass (v_i'Delta / R)^2 at each eigenvalue.

    Args:
        eigenvalues: shape (dim,).
        eigenvectors: shape (dim, dim), orthonormal columns in the order of the eigenvalues.
        order: the prunable weights.

    Raises:
        ValueError: the shapes do not fit.

    Cost: dim^2 operations per count, remembered.
    """
    spectrum = np.asarray(eigenvalues, dtype=np.float64)
    vectors: NDArray[np.float64] = np.asarray(eigenvectors, dtype=np.float64)
    if vectors.shape != (order.dim, order.dim) or spectrum.shape != (order.dim,):
        raise ValueError(
            f"Eigenvalues {spectrum.shape} and eigenvectors {vectors.shape} do not fit {order.dim} weights. "
            f"Expected: ({order.dim},) and ({order.dim}, {order.dim})."
        )

    def measure(num_removed: int) -> SpectralMeasure:
        components = vectors.T @ order.removed(num_removed)
        return atoms(spectrum, (components / order.radius(num_removed)) ** 2)

    return DeltaRuns(measure)
