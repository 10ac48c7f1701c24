import json
import math

import pytest

from suite.limits.error_budget import Check, ErrorBudget


def test_the_total_is_the_root_sum_of_squares_of_three_parts():
    budget = ErrorBudget(0.003, 0.004, 0.012, epsilon_sensitivity=0.5)
    assert budget.total == pytest.approx(0.013)


def test_what_is_not_known_is_null_in_json():
    budget = ErrorBudget(0.003, 0.004, math.inf)
    assert json.loads(json.dumps(budget.as_json(), allow_nan=False)) == {
        "probe_standard_error": 0.003,
        "truncation": 0.004,
        "subset_bias": None,
        "epsilon_sensitivity": None,
        "total": None,
    }


def test_a_check_is_as_good_as_its_worse_limit():
    budgets = {"gaussian_width": ErrorBudget(0.0, 0.1), "statistical_dimension": ErrorBudget(0.0, 0.2)}
    limits = {"gaussian_width": 0.8, "statistical_dimension": 0.9}
    check = Check(100, 16, 1, 32, 96.0, limits, budgets)
    assert check.total == 0.2
    found = json.loads(json.dumps(check.as_json(), allow_nan=False))
    assert found["statistical_dimension"]["sparsity_limit"] == 0.9
    assert found["num_matvecs"] == 32
