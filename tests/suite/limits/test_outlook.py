"""Searches that have no hope, and searches that seemed to have none and converged."""

import pytest

from suite.curvature.quadrature import atoms
from suite.limits.outlook import has_many_far_out, is_out_of_reach

STEPS = (24, 32, 48, 64, 96, 128, 192, 256)
# Truncations of searches that converged, at a tolerance of 0.005: convolutional networks and perceptrons for digits,
# the slowest of 30 by network and loss tolerance.
CONVERGED = [
    (0.0523, 0.0513, 0.0493, 0.0252, 0.0131, 0.0080, 0.0025),
    (0.1720, 0.1469, 0.1076, 0.0800, 0.0840, 0.0523, 0.0181, 0.0055),
    (0.1242, 0.0946, 0.0684, 0.0609, 0.0483, 0.0231, 0.0091, 0.0030),
    (0.1942, 0.1253, 0.1046, 0.1107, 0.0669, 0.0468, 0.0226, 0.0096),
    (0.0952, 0.0667, 0.0478, 0.0193, 0.0105, 0.0103, 0.0018),
]


def _gives_up_at(truncations: tuple[float, ...], tolerance: float = 0.005, most_steps: int = 512) -> int | None:
    seen: dict[int, float] = {}
    for steps, truncation in zip(STEPS, truncations, strict=False):
        seen[steps] = truncation
        if is_out_of_reach(seen, tolerance, most_steps):
            return steps
    return None


@pytest.mark.parametrize("truncations", CONVERGED)
def test_searches_that_converged_go_on(truncations: tuple[float, ...]) -> None:
    assert _gives_up_at(truncations) is None


def test_a_truncation_that_stands_still_is_seen_at_128_steps() -> None:
    assert _gives_up_at((0.25,) * len(STEPS)) == 128
    assert _gives_up_at((0.40, 0.38, 0.35, 0.33, 0.31, 0.29, 0.27, 0.25)) == 128


def test_a_standstill_near_the_tolerance_is_no_reason() -> None:
    assert _gives_up_at((0.015,) * len(STEPS)) is None
    assert _gives_up_at((0.25,) * len(STEPS), tolerance=0.1) is None


def test_a_law_of_one_over_n_is_foreseen_to_its_end() -> None:
    truncations = tuple(8.0 / steps for steps in STEPS)  # 0.0156 at 512 steps
    assert _gives_up_at(truncations, tolerance=0.004) is None
    assert _gives_up_at(truncations, tolerance=0.0038) == 128


def test_few_checks_say_nothing() -> None:
    assert not is_out_of_reach({}, 0.005, 512)
    assert not is_out_of_reach({96: 0.25}, 0.005, 512)
    assert not is_out_of_reach({24: 0.25, 32: 0.25, 48: 0.25, 64: 0.25, 96: 0.25}, 0.005, 512)
    assert not is_out_of_reach({24: 0.0, 64: 0.0, 96: 0.0, 128: 0.0}, 0.005, 512)


def test_eigenvalues_far_out_are_counted_by_their_mass() -> None:
    measure = atoms([-0.5, -1e-6, 1e-6, 0.5], [0.01, 0.49, 0.48, 0.02])
    assert has_many_far_out(measure, 1e-7, 100_000, 512)  # 3,000 of them
    assert not has_many_far_out(measure, 1e-7, 30_000, 512)
    assert not has_many_far_out(measure, 1e-2, 100_000, 512)
    assert has_many_far_out(measure, 1e-9, 2000, 512)
