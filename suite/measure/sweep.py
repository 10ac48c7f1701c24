"""The curve of loss and accuracy of a network that is pruned by magnitude in place, over many sparsities."""

import time

from suite.curvature.pace import Advance, duration, silent
from suite.limits.sweep import Sweep, absolute, relative, removed_counts, sweep
from suite.networks.loaded import Network
from suite.problem import evaluate
from suite.pruning.nested import NestedMagnitudeMasks

_SPLITS = ("train", "validation", "test")
_LEAST_LOSS_NATS = 1e-3  # below it the tolerance of the loss no longer shrinks: nothing of it is seen in a figure


def magnitude_sweep(
    network: Network,
    *,
    num_sparsities: int,
    accuracy_tolerance: float,
    loss_tolerance: float,
    max_evaluations: int,
    progress: Advance = silent,
) -> Sweep:
    """Return loss and accuracy on every split there is, at sparsities i / num_sparsities, the weights left as found.

    Args:
        network: changed in place meanwhile.
        num_sparsities: points.
        accuracy_tolerance: error that interpolation may have by its estimate.
        loss_tolerance: the same, as a fraction of the loss.
        max_evaluations: ends the search for what the tolerances ask.
        progress: called after every evaluation.

    Raises:
        UserError: a weight is not finite.

    Cost: at most max_evaluations evaluations of every split; see NestedMagnitudeMasks.
    """
    splits = [name for name in _SPLITS if name in network.splits]
    begin_s, num_done = time.monotonic(), 0
    with NestedMagnitudeMasks(network.model) as masks:

        def evaluated(num_removed: int) -> dict[str, float]:
            nonlocal num_done
            masks.prune_to(num_removed)
            values: dict[str, float] = {}
            for split in splits:
                loss, accuracy = evaluate(network.model, network.splits[split])
                values |= {f"{split}_loss": loss, f"{split}_accuracy": accuracy}
            num_done += 1
            left_s = (time.monotonic() - begin_s) / num_done * (max_evaluations - num_done)
            text = f"evaluation {num_done} of at most {max_evaluations}, at most {duration(left_s)} left"
            progress(num_done / max_evaluations, text)
            return values

        tolerances = {f"{split}_accuracy": absolute(accuracy_tolerance) for split in splits}
        tolerances |= {f"{split}_loss": relative(loss_tolerance, _LEAST_LOSS_NATS) for split in splits}
        counts = removed_counts(num_sparsities, masks.num_prunable)
        return sweep(evaluated, counts.tolist(), tolerances, max_evaluations)
