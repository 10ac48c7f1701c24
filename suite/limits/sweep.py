"""A curve over many sparsities from few evaluations: a coarse grid, then always the interval that is known worst."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Evaluate = Callable[[int], Mapping[str, float]]  # number of removed weights -> named values
Tolerance = Callable[[NDArray[np.float64]], NDArray[np.float64]]  # values at both ends (n, 2) -> allowed errors (n,)

COARSE_INTERVALS = 20
_MOST_CHANGE = 20.0  # tolerances between neighbouring evaluated points; a guess: looser, and steps are seen late


@dataclass(frozen=True, eq=False)
class Sweep:
    """A curve, every point of it marked as evaluated or interpolated.

    Attributes:
        num_removed: shape (num_points,), growing; equal counts where there are more points than weights.
        evaluated: shape (num_points,), bool; the other values lie on the straight line between their neighbours.
        values: one array (num_points,) per name.
        num_evaluations: of the network; no count is evaluated twice.
        is_within_tolerance: whether the estimated error of every interpolated point is at most its tolerance.
        estimated_errors: per name, the largest estimated error of an interpolated point over its tolerance.
        largest_steps: per name, the largest difference between two evaluated neighbours with points between them. It
            bounds the error of interpolation wherever the curve is monotone.
    """

    num_removed: NDArray[np.int64]
    evaluated: NDArray[np.bool_]
    values: Mapping[str, NDArray[np.float64]]
    num_evaluations: int
    is_within_tolerance: bool
    estimated_errors: Mapping[str, float]
    largest_steps: Mapping[str, float]


def removed_counts(num_points: int, dim: int) -> NDArray[np.int64]:
    """Return ceil(i * dim / num_points) for i from 0 to num_points - 1, in whole numbers.

    Source: Zhang et al. (2024), NeurIPS, whose code evaluates these sparsities.
    Differs: whole numbers, as floating point is one too many at some i; the first point is the dense network itself.

    Raises:
        ValueError: num_points or dim is below 1.
    """
    if num_points < 1 or dim < 1:
        raise ValueError(f"num_points={num_points}, dim={dim}. Expected: both at least 1.")
    return np.array([-(-point * dim // num_points) for point in range(num_points)], dtype=np.int64)


def absolute(tolerance: float) -> Tolerance:
    """Return a tolerance that is the same everywhere."""
    return lambda ends: np.full(len(ends), tolerance)


def relative(tolerance: float, least: float) -> Tolerance:
    """Return a tolerance that is a fraction of the larger value at an interval's ends, and of `least` below that."""
    return lambda ends: tolerance * np.maximum(np.abs(ends).max(axis=1), least)


def sweep(
    evaluate: Evaluate, counts: Sequence[int], tolerances: Mapping[str, Tolerance], max_evaluations: int
) -> Sweep:
    """Evaluate a curve at as few counts as tolerances need, and interpolate the others linearly.

    A coarse grid is evaluated whole. Then the interval that misses its tolerances the most is halved, again and again,
    until none misses them or the evaluations are spent. An interval is held against two numbers per curve: the error
    of linear interpolation by the curvature at its ends, which is how far each end lies from the line through the two
    points beside it; and a twentieth of the difference of its ends. So a step or a bend that the grid touches is
    followed to its place. The first is an estimate: a feature that lies wholly between two points of the coarse grid,
    and moves neither, is not seen.

    Args:
        evaluate: called once per distinct count.
        counts: not decreasing, at least one.
        tolerances: per name that evaluate returns and that is to be followed.
        max_evaluations: at least 2.

    Raises:
        ValueError: counts are empty or decrease, or max_evaluations is below 2.

    Cost: at most max_evaluations evaluations.
    """
    asked = np.asarray(counts, dtype=np.int64)
    if asked.size == 0 or (np.diff(asked) < 0).any() or max_evaluations < 2:
        raise ValueError(
            f"{asked.size} counts and max_evaluations={max_evaluations}. "
            "Expected: at least one count, none below the one before it, and at least 2 evaluations."
        )
    distinct = np.unique(asked)
    found: dict[int, Mapping[str, float]] = {}  # position in distinct -> values
    for position in _grid(len(distinct) - 1, min(COARSE_INTERVALS, max_evaluations - 1)):
        found[position] = evaluate(int(distinct[position]))
    while True:
        intervals = _Intervals.between(found, distinct, tolerances)
        worst = intervals.worst()
        if worst is None or len(found) >= max_evaluations:
            return _curve(asked, distinct, found, intervals)
        found[worst] = evaluate(int(distinct[worst]))


def _grid(last: int, num_intervals: int) -> list[int]:
    parts = max(1, min(num_intervals, last))
    return sorted({last * part // parts for part in range(parts + 1)})


@dataclass(frozen=True, eq=False)
class _Intervals:
    """What is known of the intervals between evaluated neighbours.

    Attributes:
        positions: shape (n + 1,), the evaluated ones.
        errors: per name, shape (n,), estimated error over tolerance; 0 where no point lies between.
        steps: per name, shape (n,), difference of the ends; 0 where no point lies between.
        misses: shape (n,), at most 1 where all tolerances are met.
    """

    positions: NDArray[np.int64]
    errors: Mapping[str, NDArray[np.float64]]
    steps: Mapping[str, NDArray[np.float64]]
    misses: NDArray[np.float64]

    @classmethod
    def between(
        cls,
        found: Mapping[int, Mapping[str, float]],
        distinct: NDArray[np.int64],
        tolerances: Mapping[str, Tolerance],
    ) -> "_Intervals":
        positions = np.array(sorted(found), dtype=np.int64)
        is_open = np.diff(positions) > 1
        errors, steps, misses = {}, {}, np.zeros(len(is_open))
        for name, tolerance in tolerances.items():
            values = np.array([found[int(position)][name] for position in positions])
            allowed = tolerance(np.stack([values[:-1], values[1:]], axis=1))
            with np.errstate(invalid="ignore"):  # a pruned network may overflow: such ends are halved to the last
                error = _interpolation_errors(distinct[positions].astype(np.float64), values) / allowed
                step = np.abs(np.diff(values))
            errors[name] = np.where(is_open, np.nan_to_num(error, nan=np.inf), 0.0)
            steps[name] = np.where(is_open, np.nan_to_num(step, nan=np.inf), 0.0)
            misses = np.maximum(misses, np.maximum(errors[name], steps[name] / allowed / _MOST_CHANGE))
        return cls(positions, errors, steps, np.where(is_open, np.nan_to_num(misses, nan=np.inf), 0.0))

    def worst(self) -> int | None:
        """Return the position to evaluate next, in the middle of the worst interval; None where none is needed."""
        if not len(self.misses) or self.misses.max() <= 1.0:
            return None
        index = int(self.misses.argmax())
        return int(self.positions[index] + self.positions[index + 1]) // 2


def _interpolation_errors(abscissae: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what linear interpolation errs at most in each interval, by the larger second difference at its ends.

    The error at x is (x - a)(b - x) times a second divided difference, so at most a quarter of (b - a)^2 times it.
    """
    widths = np.diff(abscissae)
    if len(widths) < 2:
        return np.zeros(len(widths))
    second = np.abs(np.diff(np.diff(values) / widths) / (abscissae[2:] - abscissae[:-2]))
    at_ends = np.maximum(np.append(second[:1], second), np.append(second, second[-1:]))
    errors: NDArray[np.float64] = widths**2 / 4.0 * at_ends
    return errors


def _curve(
    asked: NDArray[np.int64],
    distinct: NDArray[np.int64],
    found: Mapping[int, Mapping[str, float]],
    intervals: _Intervals,
) -> Sweep:
    known = distinct[intervals.positions]
    names = list(next(iter(found.values())))
    measured = {name: np.array([found[int(each)][name] for each in intervals.positions]) for name in names}
    evaluated = np.isin(asked, known)
    values = {}
    for name, at_known in measured.items():
        values[name] = np.interp(asked, known, at_known)
        values[name][evaluated] = at_known[np.searchsorted(known, asked[evaluated])]  # not a bit of it recomputed
    return Sweep(
        num_removed=asked,
        evaluated=evaluated,
        values=values,
        num_evaluations=len(found),
        is_within_tolerance=intervals.worst() is None,
        estimated_errors={name: float(each.max(initial=0.0)) for name, each in intervals.errors.items()},
        largest_steps={name: float(each.max(initial=0.0)) for name, each in intervals.steps.items()},
    )
