"""How a measurement advances: products per second, the time that is left, and where the limits stand."""

import time
from collections.abc import Callable, Iterator, Sequence

from torch import Tensor

from suite.curvature.operators import CountedOperator, SymmetricOperator
from suite.curvature.pace import Pace, duration
from suite.curvature.probes import RunRequest
from suite.curvature.slq import OperatorSource, ProbeMap, ProbeResult, WatchableMap
from suite.limits.error_budget import Check

Progress = Callable[[float, str], None]  # a fraction in [0, 1], and a short text


def part_of(progress: Progress, begin: float, end: float) -> Progress:
    """Return what takes the progress of a part that goes from one fraction of the whole to another."""
    return lambda fraction, text: progress(begin + (end - begin) * min(1.0, fraction), text)


class WatchedMap:
    """A map that passes on what another one gives, counts it, and says live how the search stands.

    Args:
        inner: runs the requests.
        progress: called after each check, and where `inner` can tell also in between.

    Attributes:
        num_restarts: runs that were begun again after a worker was lost.
        num_reissued: second copies of slow runs.
        run_seconds: that all runs took, each by the clock of its worker.
        latest: the last result of each run of the latest source, by the run's name.
    """

    def __init__(self, inner: ProbeMap, progress: Progress) -> None:
        self.num_restarts = self.num_reissued = 0
        self.run_seconds = 0.0
        self.latest: dict[str, ProbeResult] = {}
        self._inner, self._progress = inner, progress
        self._source: OperatorSource | None = None
        self._num_steps: dict[str, int] = {}
        self._standing = "first look"
        self._num_products, self._most_products, self._fraction = 0, 0, 0.0
        self._seconds, self._idle_since_s = 0.0, time.perf_counter()

    def __call__(self, source: OperatorSource, requests: Sequence[RunRequest]) -> Iterator[ProbeResult]:
        """Yield one result per request."""
        if source != self._source:
            self._source, self.latest, self._num_steps = source, {}, {}
        num_new = sum(self._num_new(request.name, request.num_lanczos_steps) for request in requests)
        if self._most_products:
            self._most_products = max(self._most_products, self._num_products + num_new)
        begin_s = time.perf_counter()
        pace = Pace(len(requests), max(1, num_new), self._advance_by(num_new, begin_s))
        inner = self._inner.watched(pace.running) if isinstance(self._inner, WatchableMap) else self._inner
        for result in inner(source, requests):
            name, before = result.request.name if result.request else str(result.index), self._num_products
            self._num_products += self._num_new(name, result.tridiagonal.num_lanczos_steps)
            self._num_steps[name] = max(self._num_steps.get(name, 0), result.tridiagonal.num_lanczos_steps)
            self.latest.pop(name, None)
            self.latest[name] = result  # the one answered last stands last
            self.num_restarts += result.restarts
            self.num_reissued += result.reissued
            self.run_seconds += result.seconds
            pace.finish(self._num_products - before)
            yield result
        self._idle_since_s = time.perf_counter()
        self._seconds += self._idle_since_s - begin_s

    def report(self, check: Check, most_products_left: int) -> None:
        """Show one check: where the limits stand, how fast it goes, how long it can still take.

        A check without steps is one of the dense Hessian, whose columns are products outside this map.
        """
        self._standing = _standing(check)
        outside = max(0, check.num_matvecs - self._num_products) if check.num_lanczos_steps == 0 else 0
        if outside:
            products, seconds = outside, time.perf_counter() - self._idle_since_s
        else:
            products, seconds = self._num_products, self._seconds
        self._most_products = self._num_products + most_products_left
        rate = products / seconds if seconds else 0.0
        speed = f"; {rate:.3g} products/s" if rate else ""
        left = f", at most {duration(most_products_left / rate)} left" if rate and most_products_left else ""
        done = check.num_matvecs / max(1, check.num_matvecs + most_products_left)
        self._tell(done, f"{self._standing}{speed}{left}")

    def _num_new(self, name: str, num_lanczos_steps: int) -> int:
        """Return how many steps more than before these are."""
        return max(0, num_lanczos_steps - self._num_steps.get(name, 0))

    def _advance_by(self, num_new: int, begin_s: float) -> Progress:
        before = self._num_products

        def advance(fraction: float, text: str) -> None:
            new = fraction * num_new
            done = (before + new) / self._most_products if self._most_products else 0.0
            each_s = (time.perf_counter() - begin_s) / new if new else 0.0
            self._tell(done, f"{self._standing}; {text}{self._at_most(before + new, each_s)}")

        return advance

    def _at_most(self, num_products: float, each_s: float) -> str:
        """Return how long it takes at most with these examples, where a check told and more than these may follow.

        At each_s per product, as of late, or as on the average so far where that is more.
        """
        left = self._most_products - num_products
        if left < 1 or not self._seconds or not self._num_products:
            return ""
        slower_s = max(each_s, self._seconds / self._num_products)
        return f", at most {duration(left * slower_s)} with these examples"

    def _tell(self, fraction: float, text: str) -> None:
        self._fraction = min(1.0, max(self._fraction, fraction))
        self._progress(self._fraction, text)


def _standing(check: Check) -> str:
    """Return the limits with their errors, and from how much of what."""
    limits = ", ".join(
        f"{name.replace('_', ' ')} {check.limits[name]:.3f} ± {check.budgets[name].total:.3f}" for name in check.limits
    )
    plural = "" if check.num_probes == 1 else "s"
    effort = f"{check.num_lanczos_steps} steps, {check.num_probes} probe{plural}, {check.num_examples} examples"
    if check.num_lanczos_steps == 0:
        effort = f"dense Hessian, {check.num_examples} examples"
    return f"{limits} ({effort})" if limits else effort


class WatchedOperator(CountedOperator):
    """An operator that says after each product how many there were, and how fast.

    Args:
        inner: computes the products.
        what: they are for.
        num_expected: a guess at how many there will be.
        progress: called with a fraction of num_expected, at most 1, and a text.
    """

    def __init__(self, inner: SymmetricOperator, what: str, num_expected: int, progress: Progress) -> None:
        super().__init__(inner.dim, inner.dtype, inner.device)
        self.plan = getattr(inner, "plan", None)  # of memory, by which bases and blocks of rows are placed
        self._inner, self._what, self._num_expected, self._progress = inner, what, num_expected, progress
        self._begin_s = time.perf_counter()
        progress(0.0, what)

    def _products(self, vectors: Tensor) -> Tensor:
        products = self._inner.matmat(vectors)
        rate = self.num_matvecs / max(1e-9, time.perf_counter() - self._begin_s)
        self._progress(
            min(1.0, self.num_matvecs / self._num_expected), f"{self._what}: {self.num_matvecs} products, {rate:.3g}/s"
        )
        return products
