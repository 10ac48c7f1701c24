"""Where running cells write how far they are, for a driver in another process to read."""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

Progress = Callable[[float, str], None]
News = dict[str, tuple[float, str]]  # cell key -> fraction, text
PAUSE_S = 0.5  # nobody reads faster, and telling costs a fraction of a millisecond


class Board:
    """Keeps the latest word of every cell; runs as an actor."""

    def __init__(self) -> None:
        """Begin empty."""
        self.news: News = {}

    def tell(self, key: str, fraction: float, text: str) -> None:
        """Write how far a cell is."""
        self.news[key] = (fraction, text)

    def take(self) -> News:
        """Return what was written since the last time."""
        news, self.news = self.news, {}
        return news


class Reader:
    """The driver's side: asks again when the last question is answered, and never waits."""

    def __init__(self, ray: Any) -> None:
        """Start the board; it takes no CPU from the cells."""
        self.ray = ray
        self.board = ray.remote(num_cpus=0)(Board).remote()
        self._question = self.board.take.remote()

    def news(self) -> News:
        """Return what has come since the last time; nothing when the board is lost, for progress is not worth a run."""
        done, _ = self.ray.wait([self._question], timeout=0)
        if not done:
            return {}
        news: News = {}
        with suppress(self.ray.exceptions.RayError):
            news = self.ray.get(done[0])
        self._question = self.board.take.remote()
        return news


def writer(board: Any, key: str) -> Progress:
    """Return the progress of one cell as a function; what comes too soon after the last word is dropped."""
    last_s = -PAUSE_S

    def tell(fraction: float, text: str) -> None:
        nonlocal last_s
        if time.monotonic() - last_s >= PAUSE_S:
            last_s = time.monotonic()
            board.tell.remote(key, fraction, text)

    return tell
