import math

import pytest

from reports import _format as shown


@pytest.mark.parametrize(
    ("function", "arguments", "text"),
    [
        (shown.sparsity_text, (0.95,), "95%"),
        (shown.sparsity_text, (0.9995,), "99.95%"),
        (shown.sparsity_text, (0.0,), "0%"),
        (shown.sparsity_text, (1.0,), "100%"),
        (shown.percent_text, (0.975,), "97.50"),
        (shown.percent_text, (0.975, 0.0031), "97.50 ± 0.31"),
        (shown.percent_text, (-0.00001,), "0.00"),
        (shown.percent_text, (-0.012,), "−1.20"),
        (shown.percent_text, (0.02, 0.05), "2.00 ± 5.00"),
        (shown.percent_text, (0.97, 1.2), "97.00 [−23.00, 100.00]"),
        (shown.fraction_text, (0.97, 0.02), "97.00 ± 2.00"),
        (shown.fraction_text, (0.97, 0.05), "97.00 [92.00, 100.00]"),
        (shown.fraction_text, (0.02, 0.05), "2.00 [0.00, 7.00]"),
        (shown.fraction_text, (0.911, 1.13), "91.10 [0.00, 100.00]"),
        (shown.fraction_text, (1.0, 0.0), "100.00 ± 0.00"),
        (shown.fraction_text, (0.97, 0.030001), "97.00 ± 3.00"),
        (shown.limit_text, (0.97, 0.01, 0, 2), "97.00 ± 1.00"),
        (shown.limit_text, (1.0, 0.0, 2, 2), "not reached"),
        (shown.limit_text, (0.998, math.nan, 1, 1), "beyond 99.80"),
        (shown.limit_text, (0.911, math.nan, 1, 2), "91.10 (1 of 2 not reached)"),
        (shown.limit_text, (math.nan, math.nan, 0, 0), "–"),
        (shown.difference_text, (0.0031,), "+0.31"),
        (shown.difference_text, (-0.0031, 0.001), "−0.31 ± 0.10"),
        (shown.difference_text, (0.00001,), "0.00"),
        (shown.count_text, (1234567,), "1,234,567"),
        (shown.si_text, (1.234e12, "FLOP"), "1.23 TFLOP"),
        (shown.si_text, (999.7, "FLOP"), "1 kFLOP"),
        (shown.si_text, (0.0, "FLOP"), "0 FLOP"),
        (shown.si_text, (12.0, "FLOP"), "12 FLOP"),
        (shown.duration_text, (2.54,), "2.5 s"),
        (shown.duration_text, (59.99,), "1 min 0 s"),
        (shown.duration_text, (75.3,), "1 min 15 s"),
        (shown.duration_text, (7265.0,), "2 h 1 min"),
        (shown.nats_text, (0.002513,), "0.00251"),
    ],
)
def test_numbers_as_they_are_printed(function, arguments, text):
    assert function(*arguments) == text


@pytest.mark.parametrize(
    "function", [shown.sparsity_text, shown.percent_text, shown.difference_text, shown.count_text, shown.duration_text]
)
def test_what_was_not_measured_is_a_dash_and_no_nan(function):
    assert function(math.nan) == shown.MISSING
    assert shown.si_text(math.nan, "FLOP") == shown.MISSING


def test_no_sparsity_below_one_prints_as_everything_removed():
    assert shown.sparsity_text(1.0 - 1.0 / 25_557_032) != "100%"
