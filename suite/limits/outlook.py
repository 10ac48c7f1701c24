"""Whether a search over Lanczos steps has any hope of its tolerance, from how its truncation has fallen so far.

The limit is an integral of c / (|lambda| + c). Where most eigenvalues lie within some c of zero, inside a spectrum many
times as wide, the Gauss and the Gauss-Radau rule differ by their mass, and more steps hardly move them: unless the
eigenvalues further out are so few that they are all found. Then the rest is resolved at once: with 150 of 3,000 further
out, a bracket from 0.15 to 0.95 after 128 steps was one from 0.116 to 0.120 after 256. So these are counted as well.
"""

import math
from collections.abc import Mapping

import numpy as np

from suite.curvature.quadrature import SpectralMeasure

_FEWEST_STEPS = 64  # before, truncation says little: it may stand still and then fall
_NUM_IN_A_ROW = 3
_WIDE_MARGIN = 4.0  # times the tolerance
_TINY = 1e-300
_FAR = 100.0  # times c: eigenvalues that hide those near c until they are found
_FEW = 2.0  # times the most steps: so few of them may all be found


def is_out_of_reach(truncations: Mapping[int, float], tolerance: float, most_steps: int) -> bool:
    """Return whether three checks in a row foresee a truncation far above the tolerance at the most steps.

    Each check foresees by the power of the number of steps that it has fallen by since half of them or fewer.

    Args:
        truncations: number of steps, growing -> truncation, in sparsity.
        tolerance: of the limits' error, in sparsity.
        most_steps: where the search gives up; not the dimension, where truncation ends.
    """
    steps = [number for number in truncations if number >= _FEWEST_STEPS][-_NUM_IN_A_ROW:]
    foreseen = [_foreseen(truncations, number, most_steps) for number in steps]
    return len(steps) == _NUM_IN_A_ROW and min(foreseen) > _WIDE_MARGIN * tolerance


def has_many_far_out(measure: SpectralMeasure, scale: float, dim: int, most_steps: int) -> bool:
    """Return whether more eigenvalues lie far from zero than the most steps can find.

    Args:
        measure: spectral measure of the Hessian; a fraction of its mass is a fraction of the eigenvalues.
        scale: c, in eigenvalue units.
        dim: number of eigenvalues.
        most_steps: where the search gives up.
    """
    far_out = measure.integrate(lambda nodes: (np.abs(nodes) > _FAR * scale).astype(np.float64))[0]
    return dim * far_out > _FEW * most_steps


def _foreseen(truncations: Mapping[int, float], num_steps: int, most_steps: int) -> float:
    now, before = truncations[num_steps], max((number for number in truncations if 2 * number <= num_steps), default=0)
    if not before:
        return 0.0
    falls = min(1.0, now / max(truncations[before], _TINY))
    return now * math.pow(falls, math.log(most_steps / num_steps) / math.log(num_steps / before))
