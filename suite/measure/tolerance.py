"""Limits to a tolerance: the search of suite.limits.subset_limits on a network that can be loaded, watched."""

import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from suite.cells._network import Network, NetworkSource
from suite.curvature.growing_runs import growing_inline_map
from suite.curvature.probes import RemovedWeightsRequest, RunRequest
from suite.curvature.slq import OperatorSource, ProbeMap, ProbeResult, inline_map
from suite.errors import UserError
from suite.limits.adaptive import Target
from suite.limits.error_budget import Check
from suite.limits.removal import MagnitudeOrder
from suite.limits.subset_limits import TolerantLimits, limits_to_tolerance
from suite.measure.spectrum import Progress, hessian_of


@dataclass(frozen=True, eq=False)
class Found:
    """What a search found, and from what.

    Attributes:
        limits: both, with their errors.
        probes: the runs of the last check from random probes, by index; of no meaning after a dense Hessian.
        removed: its run from removed weights; None where there was none.
        restarts: how often runs were begun again after a worker was lost.
        reissued: how often a second worker was asked.
        seconds: that all runs took, each by the clock of its worker.
    """

    limits: TolerantLimits
    probes: list[ProbeResult]
    removed: ProbeResult | None
    restarts: int
    reissued: int
    seconds: float


def loss_tolerance(network: Network, given: float | None) -> float:
    """Return the loss tolerance in nats: the given one, or the spread of mini-batch losses.

    Raises:
        UserError: there is no spread.
    """
    epsilon = given or network.loss_tolerance_nats()
    if not epsilon > 0:
        raise UserError(
            "All mini-batch losses are equal, so their spread is no tolerance. "
            "Give --loss-tolerance (nats), or the option loss_tolerance_nats."
        )
    return epsilon


def search_to_tolerance(
    source: NetworkSource,
    network: Network,
    target: Target,
    probe_map: ProbeMap,
    progress: Progress,
) -> Found:
    """Compute both limits to a tolerance; see limits_to_tolerance.

    Args:
        source: what each worker builds its operator from, over more and more of the examples.
        network: the same, loaded here.
        target: what is computed, and how well.
        probe_map: inline_map, or one that keeps its runs: growing_inline_map, or Ray actors.
        progress: called after each check with a fraction and how it stands.

    Raises:
        UserError: the network has no fixed Hessian, or a product is not finite.
        FileRefused: the map's folder holds runs of another network. OSError: it cannot be written.
    """
    order = MagnitudeOrder.of(network.weights())
    num_examples = len(network.splits["train"][1])
    hessian_of(network, source.dtype)  # refuses what has no fixed Hessian before any worker starts

    def source_of(size: int) -> NetworkSource:
        return source.with_examples(None if size == num_examples else size, target.seed)

    with growing_inline_map() if probe_map is inline_map else nullcontext(probe_map) as inner:
        watched = _Watched(inner, progress)
        try:
            limits = limits_to_tolerance(source_of, num_examples, order, target, watched, watched.report)
        except ValueError as error:
            raise UserError(str(error)) from error
    return watched.found(limits)


class _Watched:
    """A map that counts what passes through it, and says after each check how it stands."""

    def __init__(self, inner: ProbeMap, progress: Progress) -> None:
        self._restarts, self._reissued, self._run_seconds = 0, 0, 0.0
        self._source: OperatorSource | None = None
        self._probes: dict[int, ProbeResult] = {}  # of the latest source, each as it was answered last
        self._removed: ProbeResult | None = None
        self._inner, self._progress = inner, progress
        self._num_steps: dict[str, int] = {}
        self._num_products, self._seconds, self._fraction = 0, 0.0, 0.0

    def __call__(self, source: OperatorSource, requests: Sequence[RunRequest]) -> Iterator[ProbeResult]:
        begin_s = time.perf_counter()
        if source != self._source:
            self._source, self._removed = source, None
            self._probes.clear()
        for result in self._inner(source, requests):
            name = f"{source} {result.request.name if result.request else result.index}"
            steps = result.tridiagonal.num_lanczos_steps
            self._num_products += max(0, steps - self._num_steps.get(name, 0))
            self._num_steps[name] = steps
            self._remember(result)
            yield result
        self._seconds += time.perf_counter() - begin_s

    def _remember(self, result: ProbeResult) -> None:
        self._restarts += result.restarts
        self._reissued += result.reissued
        self._run_seconds += result.seconds
        if isinstance(result.request, RemovedWeightsRequest):
            self._removed = result
        else:
            self._probes[result.index] = result

    def found(self, limits: TolerantLimits) -> Found:
        """Return the limits with the runs that they came from."""
        probes = [self._probes[index] for index in sorted(self._probes)]
        return Found(limits, probes, self._removed, self._restarts, self._reissued, self._run_seconds)

    def report(self, check: Check, most_products_left: int) -> None:
        """Show one check: where the limits stand, how fast it goes, how long it can still take."""
        rate = self._num_products / self._seconds if self._seconds else 0.0
        done = check.num_matvecs / max(1, check.num_matvecs + most_products_left)
        self._fraction = max(self._fraction, done)
        limits = ", ".join(
            f"{name} {check.limits[name]:.3f} ± {check.budgets[name].total:.3f}" for name in check.limits
        )
        left = f", {most_products_left / rate:.0f} s at most with these examples" if rate and most_products_left else ""
        self._progress(
            self._fraction,
            f"{limits} ({check.num_lanczos_steps} steps, {check.num_probes} probes, {check.num_examples} examples; "
            f"{rate:.3g} products/s{left})",
        )
