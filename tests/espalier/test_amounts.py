"""Amounts as people write them: no power of ten, two digits, one unit where a range has one."""

import pytest

from espalier.amounts import ends, gpu_hours, guessed, hours
from suite.curvature.pace import duration
from suite.estimate.work import Guess


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.0 seconds"),
        (0.0004, "less than 0.001 seconds"),
        (0.0047, "0.0047 seconds"),
        (0.18, "0.18 seconds"),
        (3.6, "3.6 seconds"),
        (35.9, "36 seconds"),
        (36.0, "0.010 hours"),
        (306.0, "0.085 hours"),
        (3600.0, "1.0 hours"),
        (468_000.0, "130 hours"),
        (1.8e7, "5,000 hours"),
    ],
)
def test_hours_to_two_digits_and_seconds_below(seconds: float, text: str) -> None:
    assert hours(seconds) == text


def test_gpu_time_has_one_unit_where_its_range_has_one() -> None:
    assert gpu_hours(Guess.exactly(0.21)) == "0.21 GPU-seconds"
    assert gpu_hours(Guess(1.0, 2.0, 4.0)) == "~2.0 GPU-seconds (1.0-4.0 GPU-seconds)"
    assert gpu_hours(Guess(18.0, 72.0, 360.0)) == "~0.020 GPU-hours (18 GPU-seconds-0.10 GPU-hours)"
    assert gpu_hours(Guess.exactly(7.2e5)) == "200 GPU-hours"


def test_durations_and_their_ranges() -> None:
    assert guessed(Guess(130.0, 150.0, 230.0), duration) == "~2.5 min (2.2-3.8 min)"
    assert ends(Guess(50.0, 80.0, 90.0), duration) == "50 s-1.5 min"
    assert ends(Guess.exactly(4.0), duration) == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *[(0.0, "0 s"), (0.06, "0.1 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.4, "59 s"), (59.6, "1.0 min")],
        *[(597.5, "10 min"), (3569.0, "59 min"), (3571.0, "1.0 h"), (9.0e6, "2,500 h")],
    ],
)
def test_no_duration_reads_sixty_of_a_unit(seconds: float, text: str) -> None:
    assert duration(seconds) == text
