"""SLQ probes as Ray actors: only seeds go out, only tridiagonals come back.

Each actor builds the operator once, from paths, then works off probes one by one. A probe's result depends on its seed
and index alone, so it is the same for any number of actors; a lost actor costs the probe that it worked on.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from launchers._ray_session import ray_session
from suite.curvature.probes import ProbeRequest
from suite.curvature.slq import OperatorSource, ProbeMap, ProbeResult, inline_map, run_probe
from suite.environment import best_device

log = logging.getLogger(__name__)
MAX_RESTARTS = 3  # per probe, and for an actor that dies before its first; whoever kills four actors is at fault itself


class ProbeWorker:
    """What runs inside an actor."""

    def __init__(self, source: OperatorSource, threads: int) -> None:
        """Keep the source: what its building raises is an error of `ready`, not the loss of an actor."""
        torch.set_num_threads(threads)
        best_device()  # as exact as the process that planned it
        self.source = source

    def ready(self) -> None:
        """Build the operator; weights and data are loaded by path."""
        self.operator = self.source.build()

    def run(self, request: ProbeRequest) -> ProbeResult:
        """Run one probe."""
        return run_probe(self.operator, request)


@dataclass(frozen=True)
class RayProbeMap:
    """A map for suite.curvature.slq over the actors of the Ray session that this process is connected to.

    Attributes:
        num_actors: at most this many; never more than there are probes.
        threads: CPU threads per actor.
        gpus_per_actor: 1 where there are GPUs, else 0.
    """

    num_actors: int
    threads: int
    gpus_per_actor: float = 0

    def __call__(self, source: OperatorSource, requests: Sequence[ProbeRequest]) -> Iterator[ProbeResult]:
        """Yield one result per request, in the order in which they are done.

        Raises:
            ray.exceptions.RayActorError: a probe, or the building of the operator, killed MAX_RESTARTS + 1 actors.
        """
        crew = _Crew(self, source, requests)
        try:
            for _ in range(min(self.num_actors, len(requests))):
                crew.hire()
            yield from crew.work()
        finally:
            crew.dismiss()


@contextmanager
def probe_map(workers: int, threads: int | None = None) -> Iterator[ProbeMap]:
    """Yield the map for a number of workers: this process for one, else actors of a private Ray, one per GPU.

    Args:
        workers: probes at a time.
        threads: CPU threads per worker; None: torch's own number, shared out among the workers. The same number of
            threads gives the same bits whatever the number of workers.

    Raises:
        UserError: ray is needed and not installed.
    """
    each = threads or max(1, torch.get_num_threads() // workers)
    torch.set_num_threads(each)
    if workers == 1:
        yield inline_map
        return
    gpus = torch.cuda.device_count()
    with ray_session(workers * each, gpus):
        yield RayProbeMap(gpus or workers, threads=each, gpus_per_actor=1 if gpus else 0)


class _Crew:
    """The actors of one map. An actor gets its first probe when it is up: the cluster may be busy for a while."""

    def __init__(self, settings: RayProbeMap, source: OperatorSource, requests: Sequence[ProbeRequest]) -> None:
        import ray

        self.ray: Any = ray
        worker = ray.remote(num_cpus=settings.threads, num_gpus=settings.gpus_per_actor)(ProbeWorker)
        self.new_actor: Callable[[], Any] = partial(worker.remote, source, settings.threads)
        self.waiting = list(reversed(requests))
        self.running: dict[Any, tuple[Any, ProbeRequest | None]] = {}
        self.actors: list[Any] = []
        self.restarts: dict[int | None, int] = {}  # by probe index; None counts actors lost before their first probe
        self.num_left = len(requests)

    def hire(self) -> None:
        """Ask for one more actor."""
        actor = self.new_actor()
        self.actors.append(actor)
        self.running[actor.ready.remote()] = (actor, None)

    def work(self) -> Iterator[ProbeResult]:
        """Hand out probes and yield what comes back until every probe is done."""
        while self.num_left:
            (reference,), _ = self.ray.wait(list(self.running), num_returns=1)
            actor, request = self.running.pop(reference)
            try:
                result = self.ray.get(reference)
            except self.ray.exceptions.RayActorError as error:
                self._replace(actor, request, error)
                continue
            except self.ray.exceptions.RayTaskError as error:
                raise error.cause from None
            if self.waiting:
                following = self.waiting.pop()
                self.running[actor.run.remote(following)] = (actor, following)
            if request is not None:
                self.num_left -= 1
                yield replace(result, restarts=self.restarts.get(request.index, 0))

    def dismiss(self) -> None:
        """End all actors."""
        for actor in self.actors:
            self.ray.kill(actor)

    def _replace(self, actor: Any, request: ProbeRequest | None, error: Exception) -> None:
        """Put the lost actor's probe back and hire another, up to a bound."""
        index = None if request is None else request.index
        self.restarts[index] = self.restarts.get(index, 0) + 1
        log.warning("probe %s lost its actor (%d of %d)", index, self.restarts[index], MAX_RESTARTS)
        if self.restarts[index] > MAX_RESTARTS:
            raise error
        self.actors.remove(actor)
        if request is not None:
            self.waiting.append(request)
        self.hire()
