"""How fast a set of probes advances: products per second, and the time that is left."""

import time
from collections.abc import Callable

Advance = Callable[[float, str], None]  # a fraction in [0, 1], and a short text

_UNITS = (("h", 3600.0), ("min", 60.0))
_LEAST = 59.5 / 60  # of a unit: what the unit below would round to 60
_NOTHING_S = 0.05
_WHOLE = 9.95  # from here on two digits have no decimal


def silent(fraction: float, text: str) -> None:
    """Take progress and show nothing."""
    del fraction, text


class Pace:
    """Turns what a map tells into a fraction and a text such as "probe 3 of 8, 41 products/s, 25 s left".

    A product that was asked for counts as done when its probe is, though a run on an exhausted space needs fewer.

    Args:
        num_probes: asked for.
        num_products: asked for, over all probes.
        advance: called with a fraction in [0, 1] and the text.
        clock: seconds from any fixed moment.
    """

    def __init__(
        self,
        num_probes: int,
        num_products: int,
        advance: Advance,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._num_probes = num_probes
        self._num_products = num_products
        self._advance = advance
        self._clock = clock
        self._begin_s = clock()
        self._begun = False
        self._probes_done = 0
        self._products_done = 0
        self._products_running = 0

    def finish(self, num_products: int) -> None:
        """Take note of a finished probe that was asked for so many products."""
        self._probes_done += 1
        self._products_done += num_products
        self._products_running = max(0, self._products_running - num_products)
        self._tell()

    def running(self, num_products: int) -> None:
        """Take note of how many products the unfinished probes have behind them, all together."""
        if num_products == 0 and not self._begun and not self._probes_done:
            self._begin_s = self._clock()  # building operators, and waiting for a place, says nothing about the speed
        elif num_products != self._products_running:
            self._products_running = num_products
            self._tell()
        self._begun = True

    def _tell(self) -> None:
        done = min(self._num_products, self._products_done + self._products_running)
        text = f"probe {self._probes_done} of {self._num_probes}"
        elapsed_s = self._clock() - self._begin_s
        if elapsed_s > 0 and done:
            rate = done / elapsed_s
            text += f", {rate:.3g} products/s"
            if done < self._num_products:
                text += f", {duration((self._num_products - done) / rate)} left"
        self._advance(done / self._num_products, text)


def duration(seconds: float) -> str:
    """Return a time for people, to two digits: 4.1 s, 12 min, 3.4 h, 250 h; 0 s below a twentieth of a second."""
    if seconds < _NOTHING_S:
        return "0 s"
    unit, size_s = next(((unit, size_s) for unit, size_s in _UNITS if seconds >= _LEAST * size_s), ("s", 1.0))
    value = seconds / size_s
    return f"{value:,.0f} {unit}" if value >= _WHOLE else f"{value:.1f} {unit}"
