"""Stochastic Lanczos quadrature: many probes, each on its own, so that they can be sharded."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from suite.curvature.lanczos import Progress, Tridiagonal, check_num_lanczos_steps, lanczos
from suite.curvature.memory import basis_placement, say_plan
from suite.curvature.operators import SymmetricOperator
from suite.curvature.pace import Advance, Pace
from suite.curvature.probes import ProbeRequest, RunRequest, start_vector
from suite.curvature.quadrature import SpectralMeasure, gauss_quadrature


class OperatorSource(Protocol):
    """Where an operator comes from. Picklable and small: it names files and settings and holds no tensors."""

    def build(self) -> SymmetricOperator:
        """Load what is needed and return the operator; called once per worker."""
        ...


@dataclass(frozen=True, eq=False)
class ProbeResult:
    """What came of one probe: kilobytes.

    Attributes:
        index: of the probe.
        seed: of the set of probes it belongs to.
        tridiagonal: the Lanczos projection, with its status.
        seconds: wall time of the probe, its vector included.
        restarts: how often it was begun again after a worker was lost.
        reissued: how often a second worker was asked for it because the first took far longer than others.
        request: what was asked for; None in results of before there were two kinds.
    """

    index: int
    seed: int
    tridiagonal: Tridiagonal
    seconds: float
    restarts: int = 0
    reissued: int = 0
    request: RunRequest | None = None


# Takes RunRequests. "Any", so that a map which says it runs probes alone is one as well.
ProbeMap = Callable[[OperatorSource, Sequence[Any]], Iterator[ProbeResult]]
Watch = Callable[[int], None]


@runtime_checkable
class WatchableMap(Protocol):
    """A ProbeMap that can tell how far its unfinished probes are."""

    def watched(self, watch: Watch) -> ProbeMap:
        """Return the same map; it calls watch now and then with the products that unfinished probes have behind them.

        It begins with 0 when the first probe does.
        """
        ...


def run_probe(operator: SymmetricOperator, request: RunRequest, progress: Progress | None = None) -> ProbeResult:
    """Run one probe, or a run from removed weights, on one operator; progress: see lanczos.

    Raises:
        ValueError: num_lanczos_steps is above the operator's dimension, or there is nothing to start from.

    Cost: see lanczos.
    """
    begin_s = time.perf_counter()
    start = start_vector(request, operator)
    tridiagonal = _placed_lanczos(operator, start, request.num_lanczos_steps, progress)
    return ProbeResult(request.index, request.seed, tridiagonal, time.perf_counter() - begin_s, request=request)


def _placed_lanczos(
    operator: SymmetricOperator, start: Tensor, num_lanczos_steps: int, progress: Progress | None = None
) -> Tridiagonal:
    """Run Lanczos once, with its basis where the operator's memory plan has room for it."""
    check_num_lanczos_steps(num_lanczos_steps, operator.dim)
    placement = basis_placement(operator, num_lanczos_steps)
    say_plan(operator, placement, num_lanczos_steps)
    return lanczos(operator.matvec, start, num_lanczos_steps, placement=placement, progress=progress)


@dataclass(frozen=True)
class InlineMap:
    """Runs all requests here, one after another, on one operator. The reference for every other map."""

    def __call__(self, source: OperatorSource, requests: Sequence[RunRequest]) -> Iterator[ProbeResult]:
        """Yield one result per request, in their order."""
        return self._run(unwatched, source, requests)

    def watched(self, watch: Watch) -> ProbeMap:
        """Return the same map, which tells the products of the unfinished probe after each of them."""
        return partial(self._run, watch)

    def _run(self, watch: Watch, source: OperatorSource, requests: Sequence[RunRequest]) -> Iterator[ProbeResult]:
        operator = source.build()
        for request in requests:
            watch(0)
            yield run_probe(operator, request, lambda done, _: watch(done))


inline_map = InlineMap()


def unwatched(num_products: int) -> None:
    """Take the products of unfinished probes and tell nobody."""
    del num_products


def slq(
    source: OperatorSource,
    requests: Sequence[ProbeRequest],
    *,
    map: ProbeMap = inline_map,  # noqa: A002  it is one: applied to requests, perhaps on many machines
    progress: Progress | None = None,
    advance: Advance | None = None,
) -> list[ProbeResult]:
    """Run a set of probes and return one result each, sorted by index, however they were sharded.

    Args:
        source: builds the operator on every worker.
        requests: the probes, with distinct indices.
        map: how they are run; may yield in any order. Wrap it to keep results as they arrive.
        progress: called with (probes done, probes in all) as results arrive.
        advance: called with a fraction in [0, 1] and a text with the speed and the time that is left, as results arrive
            and, where the map can tell, in between.

    Raises:
        ValueError: two requests share an index.
        RuntimeError: the map lost, repeated or invented a probe.

    Source: Ubaru, Chen, Saad (2017), SIAM J. Matrix Anal. Appl. 38, "Fast estimation of tr(f(A)) via stochastic
        Lanczos quadrature".
    """
    wanted = sorted(request.index for request in requests)
    if len(set(wanted)) != len(wanted):
        raise ValueError(f"requests repeat an index: {wanted}. Expected: each index once.")
    results: list[ProbeResult] = []
    products = {request.index: request.num_lanczos_steps for request in requests}
    pace = Pace(len(wanted), sum(products.values()), advance) if advance is not None else None
    if pace is not None and isinstance(map, WatchableMap):
        map = map.watched(pace.running)  # noqa: A001  see above
    for result in map(source, requests):
        results.append(result)
        if progress is not None:
            progress(len(results), len(wanted))
        if pace is not None:
            pace.finish(products.get(result.index, 0))
    results.sort(key=lambda result: result.index)
    if [result.index for result in results] != wanted:
        got = [result.index for result in results]
        raise RuntimeError(f"The map returned probes {got} for requests {wanted}. Expected: each exactly once.")
    return results


def run_requests(
    source: OperatorSource, requests: Sequence[RunRequest], probe_map: ProbeMap
) -> dict[RunRequest, ProbeResult]:
    """Run requests of both kinds and return each with its result, however they were sharded.

    Raises:
        ValueError: a product was not finite.
        RuntimeError: the map lost, repeated or invented a run.
    """
    results: dict[RunRequest, ProbeResult] = {}
    for result in probe_map(source, requests):
        if result.request is None or result.request not in requests or result.request in results:
            raise RuntimeError(f"The map returned {result.request} for {requests}. Expected: each exactly once.")
        refuse_nonfinite(result.tridiagonal, result.request.name)
        results[result.request] = result
    if len(results) != len(requests):
        raise RuntimeError(f"The map returned {len(results)} of {len(requests)} runs. Expected: each exactly once.")
    return results


def spectral_measure(results: Sequence[ProbeResult]) -> SpectralMeasure:
    """Turn finished probes into the sampled spectral measure, one quadrature per probe in the given order.

    Raises:
        ValueError: there is no result, or the status of one is "nonfinite".
    """
    for result in results:
        refuse_nonfinite(result.tridiagonal, f"probe {result.index}")
    return SpectralMeasure(
        tuple(gauss_quadrature(result.tridiagonal.diagonal, result.tridiagonal.off_diagonal) for result in results)
    )


def start_measure(operator: SymmetricOperator, start: Tensor, num_lanczos_steps: int) -> SpectralMeasure:
    """Return the spectral measure of one given vector: mass (v_i'start / ||start||)^2 at each eigenvalue.

    One Lanczos run; the k nodes integrate polynomials up to degree 2k - 1 exactly. Not a sample: no standard error.

    Raises:
        ValueError: start or num_lanczos_steps are refused by lanczos, or a product was not finite.
    """
    tridiagonal = _placed_lanczos(operator, start, num_lanczos_steps)
    refuse_nonfinite(tridiagonal, "the run from the given vector")
    return SpectralMeasure((gauss_quadrature(tridiagonal.diagonal, tridiagonal.off_diagonal),), sampled=False)


def refuse_nonfinite(tridiagonal: Tridiagonal, label: str) -> None:
    """Refuse a run that met a product which is not finite.

    Raises:
        ValueError: the status is "nonfinite"; label names the run.
    """
    if tridiagonal.status == "nonfinite":
        raise ValueError(
            f'status "nonfinite" in {label}: the product was not finite at step {tridiagonal.num_lanczos_steps + 1}. '
            "Likely: (a) the loss overflows in this dtype, (b) the weights diverged in training."
        )
