from typing import Any

import pytest

from launchers import _board
from launchers._board import Board, writer


class Direct:
    """A board as its writers see it, in this process."""

    def __init__(self) -> None:
        self.board, self.tell = Board(), self
        self.remote = self.board.tell


def test_the_latest_word_is_read_once() -> None:
    board = Board()
    board.tell("a", 0.1, "one")
    board.tell("a", 0.2, "two")
    board.tell("b", 0.3, "three")
    assert board.take() == {"a": (0.2, "two"), "b": (0.3, "three")}
    assert board.take() == {}


def test_a_writer_is_brief(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 50.0
    monkeypatch.setattr(_board.time, "monotonic", lambda: now_s)
    direct: Any = Direct()
    tell = writer(direct, "a")
    told = []
    for fraction in (0.1, 0.2, 0.3, 0.4):
        tell(fraction, "")
        told.append(direct.board.take())
        now_s += 0.3
    assert told == [{"a": (0.1, "")}, {}, {"a": (0.3, "")}, {}]
