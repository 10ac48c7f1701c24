"""The probes of a job's cells, on all nodes and GPUs of the job where it has several."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType

import torch

from launchers._allocation import Allocation, allocation
from launchers._workers import ON_CPU
from launchers.probes import StandingMap, connected_probe_map
from launchers.ray_cluster import ray_cluster
from suite.extensions import load
from suite.plan import Cell


class JobProbes:
    """Ray on the nodes of this job, from the first cell that needs it to the end of the context.

    Args:
        logs: folder for Ray's logs, in which each job makes one of its own.
        tell: called with lines of progress.
        scratch: see ray_cluster.
    """

    def __init__(self, logs: Path, tell: Callable[[str], None], scratch: str | None = None) -> None:
        self.logs, self.tell, self.scratch = logs, tell, scratch
        self.given = allocation() if "SLURM_JOB_NODELIST" in os.environ else None
        self._stack = ExitStack()
        self._is_up = False

    def __enter__(self) -> "JobProbes":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def spread(self, cell: Cell) -> bool:
        """Return whether a cell's probes go to workers: it has some, and the job has several nodes or GPUs."""
        several = self.given is not None and (len(self.given.hosts) > 1 or self.given.gpus > 1)
        return several and load("suite.cells", cell.id.kind, "kind of cell").SHARDED

    @contextmanager
    def map_for(self, cell: Cell) -> Iterator[StandingMap]:
        """Yield a map over workers on all nodes: one for each GPU, or without any as many as the CPUs have room for.

        Raises:
            RayFailed: Ray did not come up.
        """
        assert self.given is not None
        if not self._is_up:
            self._start(self.given)
        each = self.given.gpus or self.given.cpus // cell.threads
        with connected_probe_map(cell.threads, num_actors=each * len(self.given.hosts)) as standing:
            yield standing

    def _start(self, given: Allocation) -> None:
        variables = {}
        if given.gpus and not torch.cuda.device_count():  # all nodes do as the first: no mixture of devices
            self.tell("torch sees no GPU here: probes are computed on CPUs, one worker for each GPU of the job")
            variables[ON_CPU] = "1"
        logs = self.logs / given.name
        self._stack.enter_context(ray_cluster(given, logs, self.tell, scratch=self.scratch, variables=variables))
        self._is_up = True
