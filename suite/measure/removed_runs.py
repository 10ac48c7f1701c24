"""Runs from the removed weights of a fixed effort: sent through the map that runs the probes, counted and watched."""

import time

from suite.curvature.lanczos import Tridiagonal
from suite.curvature.probes import RemovedWeightsRequest
from suite.curvature.quadrature import SpectralMeasure, gauss_quadrature
from suite.curvature.slq import OperatorSource, ProbeMap, WatchableMap, run_requests
from suite.measure.watch import Progress

_WHAT = "runs from the removed weights"


class RemovedRuns:
    """A DeltaMeasure whose runs are computed by a probe map: one after another, since each says where the next begins.

    So several workers serve them as groups, which share the data of every product; workers on their own take turns.

    Args:
        source: builds the operator, wherever the map computes.
        probe_map: runs the requests.
        num_lanczos_steps: of each run.
        num_expected: a guess at how many products there will be, for progress alone.
        progress: called with a fraction of num_expected, at most 1, and a text.

    Attributes:
        num_matvecs: products of all runs.
        num_restarts: runs that were begun again after a worker was lost.
        num_reissued: second copies of slow runs.
        runs: count of removed weights -> its run.
    """

    def __init__(
        self,
        source: OperatorSource,
        probe_map: ProbeMap,
        num_lanczos_steps: int,
        num_expected: int,
        progress: Progress,
    ) -> None:
        self.num_matvecs = self.num_restarts = self.num_reissued = 0
        self.runs: dict[int, Tridiagonal] = {}
        self._source, self._num_steps, self._num_expected = source, num_lanczos_steps, num_expected
        self._map = probe_map.watched(self._running) if isinstance(probe_map, WatchableMap) else probe_map
        self._progress, self._told, self._begin_s = progress, 0, time.perf_counter()
        progress(0.0, _WHAT)

    def __call__(self, num_removed: int) -> SpectralMeasure:
        """Return the spectral measure of the direction of so many removed weights.

        Raises:
            ValueError: a product was not finite.
        """
        request = RemovedWeightsRequest(num_removed, self._num_steps)
        result = run_requests(self._source, [request], self._map)[request]
        run = self.runs[num_removed] = result.tridiagonal
        self.num_matvecs += run.num_lanczos_steps
        self.num_restarts += result.restarts
        self.num_reissued += result.reissued
        self._running(0)
        return SpectralMeasure((gauss_quadrature(run.diagonal, run.off_diagonal),), sampled=False)

    def _running(self, num_products: int) -> None:
        """Tell of the products so far, with those of the unfinished run; one that begins anew takes none back."""
        done = self.num_matvecs + num_products
        if done <= self._told:
            return
        self._told = done
        rate = done / max(1e-9, time.perf_counter() - self._begin_s)
        self._progress(min(1.0, done / self._num_expected), f"{_WHAT}: {done} products, {rate:.3g}/s")
