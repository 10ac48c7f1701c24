"""The harness on contenders whose times are known, because their clock is."""

import json
from pathlib import Path

import pytest

from tests.performance.interleaved import (
    Result,
    Summary,
    environment,
    interleaved,
    ratio,
    read_results,
    summarised,
)


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0
        self.calls: list[str] = []

    def contender(self, name: str, *seconds: float):
        left = list(seconds)

        def run() -> None:
            self.calls.append(name)
            self.now_s += left.pop(0)

        return run

    def __call__(self) -> float:
        return self.now_s


def test_contenders_take_turns_and_the_first_round_does_not_count() -> None:
    clock = Clock()
    contenders = {"a": clock.contender("a", 9, 1, 2), "b": clock.contender("b", 9, 3, 4)}
    assert interleaved(contenders, 2, clock=clock) == {"a": [1, 2], "b": [3, 4]}
    assert clock.calls == ["a", "b", "a", "b", "a", "b"]


def test_without_warming_up_every_round_counts() -> None:
    clock = Clock()
    assert interleaved({"a": clock.contender("a", 5)}, 1, clock=clock, warm_up=False) == {"a": [5]}


def test_no_round_is_refused() -> None:
    with pytest.raises(ValueError, match="num_rounds=0 is too small"):
        interleaved({}, 0)


def test_ratios_are_taken_within_a_round() -> None:
    seconds = {"slow": [2.0, 40.0, 6.0], "fast": [1.0, 10.0, 2.0]}  # a busy second round slows both
    assert ratio(seconds, "slow", "fast") == Summary(3.0, 2.5, 3.5, 3)
    assert ratio(seconds, "slow", "fast", 2).median == 1.5


def test_quartiles_of_known_numbers() -> None:
    assert summarised([4.0, 0.0, 1.0, 3.0, 2.0]) == Summary(2.0, 1.0, 3.0, 5)
    assert summarised([7.0]) == Summary(7.0, 7.0, 7.0, 1)
    assert str(Summary(2.0, 1.0, 3.25, 5)) == "2.00 (1.00 to 3.25)"


def test_a_result_comes_back_from_its_file(tmp_path: Path) -> None:
    result = Result("name", "Title.", "Text.", ["", "a"], [["x", "1"]], environment(["torch"], 2), {"n": [1.5]})
    path = result.write(tmp_path)
    assert path == tmp_path / "name.json"
    assert read_results(tmp_path) == [result]


def test_summaries_are_written_with_their_names(tmp_path: Path) -> None:
    path = Result("name", "", "", [], [], {}, {"r": Summary(2.0, 1.0, 3.0, 5)}).write(tmp_path)
    expected = {"median": 2.0, "lower_quartile": 1.0, "upper_quartile": 3.0, "num_rounds": 5}
    assert json.loads(path.read_text())["details"]["r"] == expected


def test_the_machine_is_described_in_words() -> None:
    found = environment(["numpy"], 2)
    assert "cores" in found["machine"]
    assert found["threads"] == 2
    assert found["versions"]["numpy"].count(".") == 2
    assert found["commit"]
