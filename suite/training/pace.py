"""What a person sees of a training while it runs: speed, loss, accuracy and the time that is left."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from suite.curvature.pace import duration

GOES_ON = "goes on at step"  # begins the first word of a training that an earlier attempt began
OFTEN_S = 2.0  # between two words; each waits for the device once


@dataclass
class Pace:
    """Counts from where this process began: what an earlier one did says nothing about the speed of this one.

    Attributes:
        begin: step with which this process began.
        stop: step before which it ends.
        clock: seconds from any fixed moment.
    """

    begin: int
    stop: int
    clock: Callable[[], float] = time.monotonic
    _begin_s: float = field(init=False)
    _last_s: float = field(init=False)
    _examples: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        """Start both clocks."""
        self._begin_s = self._last_s = self.clock()

    def count(self, num_examples: int) -> None:
        """Take note of one step."""
        self._examples += num_examples

    @property
    def is_due(self) -> bool:
        """Return whether the last word was long ago."""
        return self.clock() - self._last_s >= OFTEN_S

    def text(self, next_step: int) -> str:
        """Return for example "1234 images/s, 3.1 min left": since the last word, and by the whole of this process."""
        now_s = self.clock()
        words = []
        if self._examples and now_s > self._last_s:
            words.append(f"{self._examples / (now_s - self._last_s):.4g} images/s")
        done, left = next_step - self.begin, self.stop - next_step
        if done and left:
            words.append(f"{duration((now_s - self._begin_s) / done * left)} left")
        return ", ".join(words)

    def restart(self) -> None:
        """Begin a new interval, after an evaluation say, whose time is not the training's."""
        self._last_s, self._examples = self.clock(), 0
