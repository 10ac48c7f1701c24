import math
import pkgutil
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

import suite.limits
from suite.limits.estimate import (
    check_loss_tolerance,
    count_standard_error,
    kinematic_half_width,
    largest_feasible_count,
)


@pytest.mark.parametrize(("dim", "percent"), [(3_900_000, 0.35), (23_700_000, 0.14)])
def test_half_width_of_large_networks(dim, percent):
    assert 100 * kinematic_half_width(dim) == pytest.approx(percent, abs=0.005)


def test_half_width_narrows_with_dim_and_with_the_risk_taken():
    assert kinematic_half_width(400) == pytest.approx(kinematic_half_width(100) / 2)
    assert kinematic_half_width(100, 0.1) < kinematic_half_width(100, 0.01)


@given(st.integers(1, 500), st.floats(0.0, 1.0))
def test_search_finds_the_last_feasible_count(dim, level):
    evaluated = []

    def fraction(count):
        evaluated.append(count)
        return 1.0 if count == 0 else level

    count = largest_feasible_count(fraction, dim)
    assert count == max(n for n in range(dim + 1) if n == 0 or n / dim <= level + 1e-10)
    assert len(evaluated) <= 2 + math.ceil(math.log2(dim + 1))


def test_a_flat_loss_loses_no_weight_to_rounding():
    assert largest_feasible_count(lambda _: 1.0 - 1e-15, 10_000_000) == 10_000_000


def test_standard_error_of_counts():
    assert count_standard_error([10, 14], 100, sampled=True) == pytest.approx(0.02)
    assert count_standard_error([10], 100, sampled=False) == 0.0


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_tolerances_that_are_no_positive_number_are_refused(value):
    with pytest.raises(ValueError, match=r"loss_tolerance_nats=.* Expected: a positive, finite number of nats"):
        check_loss_tolerance(value)


def test_no_formula_needs_torch():
    found = {module.name for module in pkgutil.iter_modules(suite.limits.__path__)}
    take_an_operator = {"predict", "masked_loss", "masked_quadratic", "adaptive", "subset_limits", "other_tolerances"}
    factorise = {"exact_masks"}
    names = [f"suite.limits.{name}" for name in sorted(found - take_an_operator - factorise)]
    assert len(names) >= 8
    code = f"import sys, {', '.join(names)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
