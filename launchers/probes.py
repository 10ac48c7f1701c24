"""SLQ probes as Ray actors: only seeds go out, only tridiagonals come back.

Each team, of one actor or of a group that shares the data of one operator, builds the operator once, from paths, then
works off probes one by one. A probe's result depends on its request alone, so it is the same for any number of teams;
a lost actor costs the probe that it worked on.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch

from launchers._crew import MAX_RESTARTS, Crew
from launchers._ray_session import ray_session
from launchers._team import Patience, Shape
from launchers._workers import Keeping
from suite.curvature.growing_runs import growing_inline_map
from suite.curvature.probes import RunRequest
from suite.curvature.sharded import ShardableSource
from suite.curvature.slq import OperatorSource, ProbeMap, ProbeResult, Watch, inline_map, unwatched
from suite.errors import UserError

__all__ = ["MAX_RESTARTS", "Keeping", "Patience", "RayProbeMap", "StandingMap", "connected_probe_map", "probe_map"]


@dataclass(frozen=True)
class RayProbeMap:
    """A map for suite.curvature.slq over the actors of the Ray session that this process is connected to.

    It can be sent to any process. Called as it is, it hires actors for the one call; `standing` keeps them.

    Attributes:
        num_actors: at most this many; never more than the probes need.
        threads: CPU threads per actor.
        gpus_per_actor: 1 where there are GPUs, else 0.
        group_size: so many actors, on one node, compute each product together, each over its shard of the data. The
            result is the same for any number of groups; for another group_size it differs by rounding.
        patience: with slow and silent actors.
        keeping: of runs, in the actors; of use to `standing` maps alone.

    Raises:
        UserError: group_size is below 1 or above num_actors.
    """

    num_actors: int
    threads: int
    gpus_per_actor: float = 0
    group_size: int = 1
    patience: Patience = field(default_factory=Patience)
    keeping: Keeping = field(default_factory=Keeping)

    def __post_init__(self) -> None:
        """Check the sizes."""
        if not 1 <= self.group_size <= self.num_actors:
            raise UserError(
                f"group_size={self.group_size} does not go with {self.num_actors} workers. "
                f"Expected: 1 <= group_size <= {self.num_actors}."
            )

    def __call__(self, source: OperatorSource, requests: Sequence[RunRequest]) -> Iterator[ProbeResult]:
        """Yield one result per request, in the order in which they are done; all actors end with the call.

        Raises:
            UserError: see StandingMap.
        """
        return self._run(unwatched, source, requests)

    def watched(self, watch: Watch) -> ProbeMap:
        """Return the same map, which tells the products of unfinished probes about twice a second."""
        return partial(self._run, watch)

    @contextmanager
    def standing(self) -> Iterator["StandingMap"]:
        """Yield a map whose actors stay from call to call, and end with the context."""
        standing = StandingMap(self)
        try:
            yield standing
        finally:
            standing.close()

    def _run(self, watch: Watch, source: OperatorSource, requests: Sequence[RunRequest]) -> Iterator[ProbeResult]:
        with self.standing() as standing:
            yield from standing.watched(watch)(source, requests)


class StandingMap:
    """A map that keeps its actors between calls with an equal source, and lets them go when another one comes.

    A request that differs from an earlier one by its number of steps alone is sent to the actor that served that one,
    which may go on where it stopped. One call at a time.
    """

    def __init__(self, settings: RayProbeMap) -> None:
        """Hire nobody yet."""
        self.settings = settings
        self._crew: Crew | None = None
        self._at_work = False
        self._hosts: Counter[str] = Counter()

    @property
    def threads(self) -> int:
        """CPU threads per actor."""
        return self.settings.threads

    @property
    def hosts(self) -> dict[str, int]:
        """Return name of a node -> workers that came up there so far, those that have ended included."""
        return dict(self._hosts + (self._crew.hosts if self._crew else Counter()))

    def __call__(self, source: OperatorSource, requests: Sequence[RunRequest]) -> Iterator[ProbeResult]:
        """Yield one result per request, in the order in which they are done.

        Raises:
            UserError: there is no place for the actors, the source cannot be built in shards, or one probe, or the
                building of the operator, lost MAX_RESTARTS + 1 actors.
            RuntimeError: another call has not come to its end.
        """
        return self._run(unwatched, source, requests)

    def watched(self, watch: Watch) -> ProbeMap:
        """Return the same map, which tells the products of unfinished probes about twice a second."""
        return partial(self._run, watch)

    def kept(self, folder: Path | None) -> "StandingMap":
        """Return this map, whose actors from now on keep their runs; those that are at hand end.

        Args:
            folder: where runs are saved as well, visible from every node; None: where this map was made to save them,
                if anywhere.
        """
        self.close()
        self.settings = replace(self.settings, keeping=Keeping(True, folder or self.settings.keeping.folder))
        return self

    def close(self) -> None:
        """End all actors."""
        if self._crew is not None:
            self._crew.dismiss()
            self._hosts += self._crew.hosts
            self._crew = None

    def _run(self, watch: Watch, source: OperatorSource, requests: Sequence[RunRequest]) -> Iterator[ProbeResult]:
        if not requests:
            return
        if self._at_work:
            raise RuntimeError("This map is at work for another call. Expected: one call at a time.")
        self._at_work = True
        try:
            yield from self._crew_for(source).work(requests, watch)
        except GeneratorExit:  # the caller has heard enough; what still runs is dropped when it comes
            raise
        except BaseException:
            self.close()
            raise
        finally:
            self._at_work = False

    def _crew_for(self, source: OperatorSource) -> Crew:
        settings = self.settings
        if settings.group_size > 1 and not isinstance(source, ShardableSource):
            raise UserError(
                f"{type(source).__name__} cannot be built in shards (it has no build_shard). Expected: group_size=1."
            )
        if self._crew is None or self._crew.source != source:
            self.close()
            shape = Shape(settings.group_size, settings.threads, settings.gpus_per_actor)
            self._crew = Crew(
                source, settings.num_actors // settings.group_size, shape, settings.patience, settings.keeping
            )
        return self._crew


@contextmanager
def probe_map(
    workers: int, threads: int | None = None, group_size: int = 1, *, keeping: Keeping | None = None
) -> Iterator[ProbeMap]:
    """Yield the map for a number of workers: this process for one, else actors of a private Ray.

    The actors stay from call to call while the source does, and end with the context.

    Args:
        workers: processes at a time; where there are GPUs each has one of its own, so that there are no more than GPUs.
        threads: CPU threads per worker; None: torch's own number, shared out among the workers. The same number of
            threads gives the same bits whatever the number of workers.
        group_size: so many workers compute each product together, each over its shard of the data.
        keeping: whether runs are kept to go on with; None: no.

    Raises:
        UserError: ray is needed and not installed, or there are fewer workers, or GPUs, than one group needs.
    """
    gpus = torch.cuda.device_count()
    num_actors = min(workers, gpus or workers)
    if num_actors < group_size <= workers:
        raise UserError(
            f"group_size={group_size} needs {group_size} GPUs, one for each worker; GPUs here: {gpus}. "
            f"Expected: group_size <= {gpus}, or an empty CUDA_VISIBLE_DEVICES to compute on the CPU."
        )
    each = threads or max(1, torch.get_num_threads() // num_actors)
    torch.set_num_threads(each)
    if workers == group_size == 1:
        with growing_inline_map(keeping.folder) if keeping and keeping.runs else nullcontext(inline_map) as inline:
            yield inline
        return
    settings = RayProbeMap(num_actors, each, 1 if gpus else 0, group_size, keeping=keeping or Keeping())
    with ray_session(num_actors * each, num_actors if gpus else 0), settings.standing() as standing:
        yield standing


@contextmanager
def connected_probe_map(
    threads: int, *, num_actors: int | None = None, group_size: int = 1, patience: Patience | None = None
) -> Iterator[StandingMap]:
    """Yield a map over the Ray cluster that this process is connected to already, on one node or many.

    Ray is left as it is; only the actors end with the context.

    Args:
        threads: CPU threads per actor.
        num_actors: None: as many as the cluster has GPUs, or without any as its CPUs have room for.
        group_size: see RayProbeMap.
        patience: with slow and silent actors; None: the defaults.

    Raises:
        UserError: this process is not connected to Ray, or the cluster has no room for one group.
    """
    import ray

    if not ray.is_initialized():
        raise UserError("This process is not connected to Ray. Expected: ray.init(address=...) before.")
    there = ray.cluster_resources()
    gpus = int(there.get("GPU", 0))
    number = num_actors or gpus or int(there.get("CPU", 0)) // threads
    settings = RayProbeMap(number, threads, 1 if gpus else 0, group_size, patience or Patience())
    with settings.standing() as standing:
        yield standing
