"""Loss tolerances: how much the mean loss may rise before a network counts as damaged."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

BATCH_SIZE = 128  # of the published tolerance; another size gives another tolerance
SCALES = (0.5, 1.0, 2.0)


def batch_loss_std(losses: ArrayLike) -> float:
    """Return the population standard deviation of mini-batch losses, in nats.

    Args:
        losses: shape (num_batches,), mean cross-entropy of each batch of 128 examples in a fixed order, network in
            eval mode; every batch counts the same, a smaller last one too.

    Raises:
        ValueError: fewer than two batches, or a loss that is not finite.

    Source: the loss tolerance of Zhang, Zhang, Sun, Liu (2024), NeurIPS.
    """
    values = np.asarray(losses, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"losses have shape {values.shape}. Expected: (num_batches,) with at least 2 batches.")
    if not np.isfinite(values).all():
        raise ValueError(f"{int(np.count_nonzero(~np.isfinite(values)))} losses are not finite. Has training diverged?")
    return float(np.std(values))


def scaled_tolerances(loss_tolerance_nats: float, scales: Sequence[float] = SCALES) -> tuple[float, ...]:
    """Return the tolerances a limit is reported at, to show how much hangs on their choice."""
    return tuple(scale * loss_tolerance_nats for scale in scales)
