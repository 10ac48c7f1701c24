"""Measured limits: the largest sparsity that meets a criterion, found with few evaluations of a real network."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Feasible = Callable[[float], tuple[bool, Mapping[str, Any]]]

_COARSE_INTERVALS = 20
_REFINED_INTERVALS = 10


@dataclass(frozen=True)
class MeasuredPoint:
    """One evaluated sparsity: whether the criterion held, and what was measured there."""

    sparsity: float
    feasible: bool
    values: Mapping[str, Any]


@dataclass(frozen=True)
class MeasuredLimit:
    """The outcome of a search.

    Attributes:
        sparsity_limit: the largest evaluated sparsity that was feasible; None when none was.
        curve: every evaluated point, by growing sparsity.
        resolution: the step the limit is known to.
    """

    sparsity_limit: float | None
    curve: tuple[MeasuredPoint, ...]
    resolution: float

    @property
    def is_monotone(self) -> bool:
        """Whether no evaluated point was feasible above one that was not."""
        outcomes = [point.feasible for point in self.curve]
        return outcomes == sorted(outcomes, reverse=True)


def coarse_to_fine(feasible: Feasible, resolution: float = 1 / 1000, max_evaluations: int = 60) -> MeasuredLimit:
    """Find the largest feasible sparsity on a grid, first coarsely over [0, 1], then where it stops being feasible.

    The coarse grid is evaluated whole. Then the interval between the last feasible point and the infeasible one after
    it is divided again and again, into ten parts or, when evaluations run short, into two. On a monotone curve the
    result is exact to the resolution. On another it assumes that no feasible island lies wholly between two
    neighbouring infeasible points above the last feasible one; the curve shows how far that can be believed.

    Args:
        feasible: evaluates one sparsity, a multiple of resolution; returns whether the criterion holds and what to
            keep of the measurement.
        resolution: step in sparsity, 1 over a whole number.
        max_evaluations: at least 2 + log2(1 / resolution).

    Raises:
        ValueError: resolution is not 1 over a whole number, or max_evaluations is too small to reach it.

    Cost: at most max_evaluations evaluations; 34 at the default resolution.
    """
    num_steps = _checked_steps(resolution, max_evaluations)
    points: dict[int, MeasuredPoint] = {}

    def evaluate(step: int) -> None:
        sparsity = step / num_steps
        met, values = feasible(sparsity)
        points[step] = MeasuredPoint(sparsity, met, values)

    for step in _grid(0, num_steps, _num_intervals(num_steps, _COARSE_INTERVALS, max_evaluations - 2)):
        evaluate(step)
    while (gap := _open_interval(points)) is not None:
        width = gap[1] - gap[0]
        num_intervals = _num_intervals(width, _REFINED_INTERVALS, max_evaluations - len(points))
        for step in _grid(*gap, num_intervals)[1:-1]:
            evaluate(step)
    met_steps = [step for step, point in points.items() if point.feasible]
    curve = tuple(points[step] for step in sorted(points))
    return MeasuredLimit(max(met_steps) / num_steps if met_steps else None, curve, 1 / num_steps)


def _checked_steps(resolution: float, max_evaluations: int) -> int:
    num_steps = round(1 / resolution) if 0.0 < resolution <= 1.0 else 0
    if num_steps == 0 or not math.isclose(num_steps * resolution, 1.0, rel_tol=1e-9):
        raise ValueError(f"resolution={resolution} does not divide 1. Expected: 1 over a whole number, such as 0.001.")
    least = 2 + _num_halvings(num_steps)
    if max_evaluations < least:
        raise ValueError(
            f"max_evaluations={max_evaluations} cannot reach a resolution of {resolution}. Expected: at least {least}."
        )
    return num_steps


def _num_halvings(width: int) -> int:
    return math.ceil(math.log2(width))


def _num_intervals(width: int, wanted: int, evaluations_left: int) -> int:
    """Return how many parts an interval can be cut into so that halving can still finish the widest part."""
    for num_intervals in range(min(wanted, width), 1, -1):
        widest = math.ceil(width / num_intervals)
        if num_intervals - 1 + _num_halvings(widest) <= evaluations_left:
            return num_intervals
    return min(2, width)


def _grid(low: int, high: int, num_intervals: int) -> list[int]:
    return [low + (high - low) * part // num_intervals for part in range(num_intervals + 1)]


def _open_interval(points: dict[int, MeasuredPoint]) -> tuple[int, int] | None:
    """Return the steps of the last feasible point and the infeasible one after it, None when nothing lies between."""
    met_steps = [step for step, point in points.items() if point.feasible]
    if not met_steps or max(met_steps) == max(points):
        return None
    last = max(met_steps)
    after = min(step for step in points if step > last)
    return (last, after) if after - last > 1 else None
