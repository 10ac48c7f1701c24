import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from suite.limits.count_search import bracket_count

SHAPES = {
    "line": lambda count, limit: float(count - limit),
    "logarithm": lambda count, limit: math.log((count + 1) / (limit + 1)),
    "step": lambda count, limit: -1.0 if count <= limit else 1.0,
    "cliff": lambda count, limit: -math.inf if count <= limit else 1e-9,
    "late rise": lambda count, limit: -1e-9 if count <= limit else 1e9,
}


@given(st.integers(0, 5000), st.integers(0, 5000), st.sampled_from(sorted(SHAPES)), st.integers(1, 40), st.data())
def test_the_bracket_holds_the_last_feasible_count(start, limit, shape, width, data):
    lowest = data.draw(st.integers(0, limit))
    asked: list[int] = []

    def excess(count: int) -> float:
        asked.append(count)
        return SHAPES[shape](count, limit)

    below, above = bracket_count(excess, start, lowest, 5000, width)
    assert lowest <= below <= limit
    assert limit < above or (above, below) == (5001, 5000)
    assert above - below <= width or above == 5001
    assert below == lowest or below in asked
    assert all(lowest < count <= 5000 for count in asked)
    assert len(asked) == len(set(asked)) <= 3 * math.log2(5000) + 15


@pytest.mark.parametrize("away", [-9, -1, 0, 1, 9])
def test_few_evaluations_do_from_a_near_guess(away):
    asked: list[int] = []

    def excess(count: int) -> float:
        asked.append(count)
        return math.log((count + 1) / 801)

    assert bracket_count(excess, 800 + away, 0, 1000, 1) == (800, 801)
    assert len(asked) <= 7


def test_nothing_is_asked_where_all_are_known_to_be_feasible():
    def excess(count: int) -> float:
        raise AssertionError(f"{count} was asked for")

    assert bracket_count(excess, 3, 10, 10, 1) == (10, 11)
