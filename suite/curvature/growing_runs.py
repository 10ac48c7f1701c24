"""Lanczos runs that are kept, so that a request for more steps goes on where the last one ended.

A request is idempotent: its result depends on operator and request alone, kept run or not. So a worker that is lost,
or a process that is killed, costs time and changes nothing.
"""

import hashlib
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Protocol, runtime_checkable

from data.hdf5 import refusal
from suite.curvature.basis import rows_reserved
from suite.curvature.lanczos import LanczosRun, check_num_lanczos_steps
from suite.curvature.memory import basis_placement, basis_room_bytes, say_plan
from suite.curvature.operators import SymmetricOperator
from suite.curvature.probes import RunRequest, start_vector
from suite.curvature.saved_runs import load_run, save_run
from suite.curvature.slq import OperatorSource, ProbeMap, ProbeResult, Watch, inline_map, unwatched

logger = logging.getLogger(__name__)

NUM_ROWS_FORESEEN = 256  # a basis is placed as if it will grow so far; a longer run grows where it lies


class GrowingRuns:
    """The runs of one operator in one process.

    Args:
        operator: the same for the life of this object.
        folder: where runs are saved after each request, and found again; None: they are lost with the process.

    Cost: each run keeps its basis; a run that is found in the folder costs one product more, which tells whether it is
        this operator's. On an accelerator, idle bases are moved to host memory when all together exceed
        what the operator's memory plan has left for them.
    """

    def __init__(self, operator: SymmetricOperator, folder: Path | None = None) -> None:
        self.operator = operator
        self._folder = folder
        self._runs: dict[str, LanczosRun] = {}  # the one used last stands last
        self._placement = basis_placement(operator, NUM_ROWS_FORESEEN)
        self._foreseen = (0, 0)  # steps of the longest run, runs
        self._identity = "" if folder is None else operator_identity(operator)

    def expect(self, requests: Sequence[RunRequest]) -> None:
        """Say in the log what memory these requests and the runs that are kept will take together, if that is more."""
        names = {*self._runs, *(request.name for request in requests)}
        longest = max((request.num_lanczos_steps for request in requests), default=0)
        steps, num_runs = (max(pair) for pair in zip(self._foreseen, (longest, len(names)), strict=True))
        if steps and (steps, num_runs) != self._foreseen:
            self._foreseen = (steps, num_runs)
            say_plan(self.operator, self._placement, steps, num_runs)

    def run(self, request: RunRequest, watch: Watch = unwatched) -> ProbeResult:
        """Return what the request asks for, computing only the steps that are not there yet.

        Args:
            request: a probe, or a run from removed weights.
            watch: called with 0 before, and after each product with how many there were.

        Raises:
            ValueError: num_lanczos_steps is above the operator's dimension, or there is nothing to start from.
            FileRefused: the folder holds runs of another operator, or damaged ones. OSError: it cannot be written.
        """
        begin_s = time.perf_counter()
        check_num_lanczos_steps(request.num_lanczos_steps, self.operator.dim)
        self.expect([request])
        run = self._found(request)
        before, steps_before = run.basis.num_rows, run.num_lanczos_steps
        watch(0)
        tridiagonal = run.extend_to(
            self.operator.matvec, request.num_lanczos_steps, lambda done, _: watch(done - steps_before)
        )
        if self._folder is not None and run.basis.num_rows > before:
            save_run(run, self._folder / request.name, self._identity)
        return ProbeResult(request.index, request.seed, tridiagonal, time.perf_counter() - begin_s, request=request)

    def _found(self, request: RunRequest) -> LanczosRun:
        run = self._runs.pop(request.name, None)
        if run is None and self._folder is not None:
            run = load_run(self._folder / request.name, self._identity, self._placement, self.operator.device)
            if run is not None and not run.continues(self.operator.matvec):
                raise refusal(
                    self._folder / request.name,
                    "holds a run on other data or another network",
                    "the ones it was begun with",
                    "Give another folder.",
                )
        if run is None:
            run = LanczosRun(start_vector(request, self.operator), placement=self._placement)
        self._make_room(run, request.num_lanczos_steps)
        self._runs[request.name] = run
        return run

    def _make_room(self, run: LanczosRun, num_rows: int) -> None:
        """Bring the basis of the run to go on with to its place, those of the others out of the way if need be."""
        room = basis_room_bytes(self.operator) - rows_reserved(num_rows) * run.dim * self._placement.dtype.itemsize
        for other in reversed(self._runs.values()):
            room -= other.basis.num_bytes
            if room < 0:
                other.basis.park()
        run.basis.unpark()


def operator_identity(operator: SymmetricOperator) -> str:
    """Return a digest of what tells operators apart without a product: size, type, weights, number of examples.

    Two data sets of one size are told apart by LanczosRun.continues alone.
    """
    digest = hashlib.sha256(f"{operator.dim} {operator.dtype} {getattr(operator, 'num_examples', '')}".encode())
    weights = getattr(operator, "weights", None)
    if weights is not None:
        digest.update(weights().cpu().numpy().tobytes())
    return digest.hexdigest()


def source_folder(folder: Path, source: OperatorSource) -> Path:
    """Return the folder of one source's runs, named by a digest of its fields."""
    return folder / hashlib.sha256(repr(source).encode()).hexdigest()[:16]


class GrowingInlineMap:
    """Runs all requests in this process and keeps the runs of the latest source.

    Args:
        folder: where runs are saved, a folder per source; None: nowhere.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._latest: list[tuple[OperatorSource, GrowingRuns]] = []

    def __call__(self, source: OperatorSource, requests: Sequence[RunRequest]) -> Iterator[ProbeResult]:
        """Yield one result per request, in their order."""
        return self._run(unwatched, source, requests)

    def watched(self, watch: Watch) -> ProbeMap:
        """Return the same map, which tells the products of the unfinished run after each of them."""
        return partial(self._run, watch)

    def close(self) -> None:
        """Let all runs go."""
        self._latest.clear()

    def _run(self, watch: Watch, source: OperatorSource, requests: Sequence[RunRequest]) -> Iterator[ProbeResult]:
        if not self._latest or self._latest[0][0] != source:
            self.close()  # first, so that two operators are never held at once
            runs = GrowingRuns(source.build(), self._folder and source_folder(self._folder, source))
            self._latest.append((source, runs))
        self._latest[0][1].expect(requests)
        for request in requests:
            yield self._latest[0][1].run(request, watch)


@contextmanager
def growing_inline_map(folder: Path | None = None) -> Iterator[GrowingInlineMap]:
    """Yield a map that runs all requests in this process and lets its runs go in the end; folder: see the map."""
    growing = GrowingInlineMap(folder)
    yield growing
    growing.close()


@runtime_checkable
class KeepingMap(Protocol):
    """A ProbeMap whose workers can keep their runs."""

    def kept(self, folder: Path | None) -> ProbeMap:
        """Return the map with workers that keep their runs.

        Args:
            folder: where runs are saved, a folder per source, visible to all workers; None: where the map says itself.
        """
        ...

    def close(self) -> None:
        """Let all runs go; the map may be used again."""
        ...


@contextmanager
def kept_runs(probe_map: ProbeMap, folder: Path | None) -> Iterator[ProbeMap]:
    """Yield the map as one that keeps its runs: for a search, which asks for the same runs with more and more steps.

    In the end the runs, which hold operators and bases, are let go of, wherever they were kept.

    Args:
        probe_map: inline_map, or one that can be told; any other is yielded as it is, which costs time alone.
        folder: where runs are saved, a folder per source; None: where the map says itself, if anywhere.
    """
    if probe_map is inline_map:
        with growing_inline_map(folder) as growing:
            yield growing
        return
    yield probe_map.kept(folder) if isinstance(probe_map, KeepingMap) else probe_map
    if isinstance(probe_map, KeepingMap | GrowingInlineMap):
        probe_map.close()
