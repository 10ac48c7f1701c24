"""Both predicted limits of one network at the tolerance, its half and its double, from a spectrum and an operator."""

from dataclasses import dataclass

import numpy as np
import torch

from suite.curvature.operators import SymmetricOperator
from suite.curvature.quadrature import SpectralMeasure
from suite.curvature.slq import start_measure
from suite.limits.curvature_treatment import Curvature
from suite.limits.estimate import LimitEstimate
from suite.limits.gaussian_width import gaussian_width_limit
from suite.limits.removal import MagnitudeOrder
from suite.limits.statistical_dimension import DeltaMeasure, DeltaRuns, statistical_dimension_limit
from suite.limits.tolerance import SCALES


@dataclass(frozen=True)
class Prediction:
    """One predicted limit.

    Attributes:
        limit: "gaussian_width", "statistical_dimension", or "masked_quadratic", which is computed elsewhere.
        tolerance_factor: by which the loss tolerance was multiplied: 0.5, 1 or 2.
        estimate: the limit with its parts.
    """

    limit: str
    tolerance_factor: float
    estimate: LimitEstimate


def predict(
    measure: SpectralMeasure,
    order: MagnitudeOrder,
    loss_tolerance_nats: float,
    delta_measure: DeltaMeasure,
    curvature: Curvature,
    *,
    resolution: float = 1e-4,
) -> list[Prediction]:
    """Compute both limits at each tolerance factor; the runs from removed weights are shared between factors.

    Args:
        measure: mu, spectral measure of the Hessian over the prunable weights.
        order: the prunable weights.
        loss_tolerance_nats: epsilon, how much the mean loss may rise.
        delta_measure: nu; from lanczos_delta_measure, or exact_delta_measure for a dense Hessian.
        curvature: treatment of negative eigenvalues, the same in both limits.
        resolution: see statistical_dimension_limit.

    Raises:
        ValueError: the tolerance is not positive.
    """
    runs = delta_measure if isinstance(delta_measure, DeltaRuns) else DeltaRuns(delta_measure)
    predictions = []
    for factor in SCALES:
        tolerance = factor * loss_tolerance_nats
        width = gaussian_width_limit(measure, order, tolerance, curvature=curvature)
        sharp = statistical_dimension_limit(measure, order, tolerance, runs, curvature=curvature, resolution=resolution)
        predictions += [
            Prediction("gaussian_width", factor, width),
            Prediction("statistical_dimension", factor, sharp),
        ]
    return predictions


def lanczos_delta_measure(operator: SymmetricOperator, order: MagnitudeOrder, num_lanczos_steps: int) -> DeltaMeasure:
    """Return nu by one Lanczos run from the removed weights per count; num_lanczos_steps matvecs each."""

    def measure(num_removed: int) -> SpectralMeasure:
        start = torch.from_numpy(np.ascontiguousarray(order.removed(num_removed))).to(operator.device, operator.dtype)
        return start_measure(operator, start, num_lanczos_steps)

    return measure
