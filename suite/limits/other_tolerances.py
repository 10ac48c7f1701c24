"""Both limits at half and double the loss tolerance, from the runs of the tolerance itself and two short ones.

Another loss tolerance removes another number of weights, whose direction is another; random probes serve all. How the
direction moves the limit is seen after few steps: a run of a quarter of the steps from the other count's weights is
held against the first quarter of the run that is there. By the Gauss-Radau rule, whose limit does not jump when a node
crosses 0 as the Gauss rule's does.

Measured on two perceptrons and six convolutional networks for digits (2,720 and 994 weights, dense Hessians, tolerance
0.005, loss tolerances 0.005 and 0.0005), beside the error of the limit at the tolerance itself: 0.0025 at most, 0.001
in the mean, as with whole runs. With the direction held fixed it was 0.011 and 0.003, with 32 steps in place of a
quarter (24 to 96) 0.0035 and 0.001. The whole error on 13 networks: 0.002 in the mean where it was 0.004, at most
0.006 where it was 0.013; that of epsilon_sensitivity at most 0.002 where it was 0.010.
"""

from dataclasses import replace

from suite.curvature.slq import OperatorSource
from suite.limits.adaptive import StepSearch
from suite.limits.bracket import LIMITS, Runs, shortened
from suite.limits.tolerance import SCALES

_FEWEST_STEPS = 32
_MOST_FEEDBACK = 0.5  # of a limit's move on the count that its direction is of; -0.2 to -0.05 were measured

PUBLISHED, SHARP = LIMITS
ScaledLimits = dict[tuple[str, float], float]  # (limit, tolerance factor) -> sparsity


def with_the_direction_held(runs: Runs, loss_tolerance_nats: float) -> ScaledLimits:
    """Return both limits at each tolerance factor, the removed weights' direction the same in all.

    Cost: no product.
    """
    return {(name, scale): runs.middle(name, scale * loss_tolerance_nats) for scale in SCALES for name in LIMITS}


def with_their_own_directions(
    runs: Runs, search: StepSearch, source: OperatorSource, num_examples: int
) -> ScaledLimits:
    """Return both limits at each tolerance factor, those of the statistical dimension each with its own direction.

    No limit falls with the factor, and none is below the published one.

    Args:
        runs: the last ones of the search.
        search: makes the short runs, and enters them.
        source: of the operator that the runs are about.
        num_examples: of that operator.

    Raises:
        ValueError: a product was not finite.

    Cost: two runs of a quarter of the steps, of 32 at least: 4 to 17 % on top of a search where it was measured.
    """
    epsilon, order = search.target.loss_tolerance_nats, search.order
    limits = with_the_direction_held(runs, epsilon)
    if runs.removed is None:
        return limits
    sharp = {scale: limits[SHARP, scale] for scale in SCALES}
    all_steps = runs.removed.num_lanczos_steps
    steps = min(max(_FEWEST_STEPS, all_steps // 4), all_steps)
    counts = {scale: order.count_near(sharp[scale]) for scale in SCALES if scale != 1.0}
    counts = {scale: count for scale, count in counts.items() if count != search.num_removed}  # that run is there
    distinct = sorted(set(counts.values()))
    others = dict(zip(distinct, search.removed_runs(source, num_examples, distinct, steps), strict=True))
    here = replace(runs, removed=shortened(runs.removed, steps / all_steps))
    for scale, count in counts.items():
        there = replace(runs, removed=others[count])
        before, after = (each.limit(SHARP, scale * epsilon, upper=True) for each in (here, there))
        own = _fixed_point(search.num_removed / order.dim, sharp[scale], after - before)
        outside = min(own, sharp[1.0]) if scale < 1.0 else max(own, sharp[1.0])
        limits[SHARP, scale] = max(outside, limits[PUBLISHED, scale])
    return limits


def _fixed_point(at: float, limit: float, move: float) -> float:
    """Return the sparsity whose own direction has it as limit, by the line through two directions' limits.

    Args:
        at: sparsity of the direction that is held.
        limit: with that direction.
        move: what the limit changes by with the direction of the sparsity `limit` instead.
    """
    if limit == at:
        return limit
    feedback = min(max(move / (limit - at), -_MOST_FEEDBACK), _MOST_FEEDBACK)
    return at + (limit - at) / (1.0 - feedback)
