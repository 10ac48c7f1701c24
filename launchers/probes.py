"""SLQ probes as Ray actors: only seeds go out, only tridiagonals come back.

Each actor builds the operator once, from paths, then works off probes one by one. A probe's result depends on its seed
and index alone, so it is the same for any number of actors; a lost actor costs the probe that it worked on.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from suite.curvature.probes import ProbeRequest
from suite.curvature.slq import OperatorSource, ProbeResult, run_probe

log = logging.getLogger(__name__)
MAX_RESTARTS = 3  # per probe; a probe that kills four actors is at fault itself


class ProbeWorker:
    """What runs inside an actor."""

    def __init__(self, source: OperatorSource, threads: int) -> None:
        """Build the operator; weights and data are loaded by path."""
        torch.set_num_threads(threads)
        self.operator = source.build()

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
        """Yield one result per request, in the order in which they are done."""
        import ray

        worker = ray.remote(num_cpus=self.threads, num_gpus=self.gpus_per_actor)(ProbeWorker)
        actors = [worker.remote(source, self.threads) for _ in range(min(self.num_actors, len(requests)))]
        waiting, running = list(reversed(requests)), {}
        restarts = {request.index: 0 for request in requests}
        try:
            for actor in actors:
                request = waiting.pop()
                running[actor.run.remote(request)] = (actor, request)
            while running:
                (reference,), _ = ray.wait(list(running), num_returns=1)
                actor, request = running.pop(reference)
                result = self._result(ray, reference, restarts, request)
                if result is None:  # the actor is gone: a new one takes its probe
                    actors.remove(actor)
                    actors.append(actor := worker.remote(source, self.threads))
                    running[actor.run.remote(request)] = (actor, request)
                    continue
                if waiting:
                    following = waiting.pop()
                    running[actor.run.remote(following)] = (actor, following)
                yield result
        finally:
            for actor in actors:
                ray.kill(actor)

    def _result(self, ray: Any, reference: Any, restarts: dict[int, int], request: ProbeRequest) -> ProbeResult | None:
        """Return a probe's result, or None when its actor died and the probe may be tried again."""
        try:
            result: ProbeResult = ray.get(reference)
        except ray.exceptions.RayActorError:
            restarts[request.index] += 1
            log.warning("probe %d lost its actor (%d of %d)", request.index, restarts[request.index], MAX_RESTARTS)
            if restarts[request.index] > MAX_RESTARTS:
                raise
            time.sleep(0.1 * restarts[request.index])
            return None
        return replace(result, restarts=restarts[request.index])
