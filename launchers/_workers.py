"""What runs inside the actors: a worker that computes probes alone, and the members of a group that shares the data.

All members of a group are on one node, so they meet over a private file and talk over the loopback interface alone.
"""

import os
import platform
import tempfile
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from suite.curvature.growing_runs import GrowingRuns, source_folder
from suite.curvature.operators import SymmetricOperator
from suite.curvature.probes import RunRequest
from suite.curvature.sharded import PeerLost, ShardableSource, SummedOperator, serve
from suite.curvature.slq import OperatorSource, ProbeResult, run_probe
from suite.environment import best_device
from suite.process_group import process_group

ON_CPU = "ESPALIER_PROBES_ON_CPU"  # set where GPUs are handed out that torch cannot use: they only count workers


@dataclass(frozen=True)
class Keeping:
    """Whether workers keep their runs, so that a request for more steps goes on where the last one ended.

    Attributes:
        runs: keep the Krylov basis of every run, num_lanczos_steps * dim numbers each.
        folder: save them there as well, visible from every node, and go on from what is there; None: nowhere.
    """

    runs: bool = False
    folder: Path | None = None


class ProbeWorker:
    """Builds an operator once, from paths, and works off probes.

    `pulse` runs in a thread of its own and answers while a product is computed: it costs a look at a counter.
    """

    def __init__(self, source: OperatorSource, threads: int, keeping: Keeping = Keeping()) -> None:
        """Keep the source: what its building raises is an error of `ready`, not the loss of an actor."""
        torch.set_num_threads(threads)
        best_device()  # as exact as the process that planned it
        self.source, self.keeping = source, keeping
        self.operator: SymmetricOperator | None = None
        self.runs: GrowingRuns | None = None
        self.begun = 0
        self.products_before = 0

    @property
    def leads(self) -> bool:
        """Whether this process runs Lanczos: the others of a group only multiply."""
        return True

    def ready(self) -> str:
        """Build the operator; weights and data are loaded by path. Return the name of this node.

        Raises:
            RuntimeError: the GPUs that this process sees are not those that Ray gave it.
        """
        self.source = _on_own_device(self.source)
        self._keep(self.source.build())
        return platform.node()

    def run(self, request: RunRequest) -> ProbeResult | PeerLost:
        """Run one probe."""
        return self._compute(request)

    def pulse(self) -> tuple[int, int]:
        """Return how many probes were begun here, and the products of the latest."""
        if self.operator is None:
            return 0, 0
        return self.begun, self.operator.num_matvecs - self.products_before

    def _keep(self, operator: SymmetricOperator) -> None:
        self.products_before = operator.num_matvecs
        self.operator = operator
        if self.keeping.runs and self.leads:
            folder = self.keeping.folder
            self.runs = GrowingRuns(operator, folder and source_folder(folder, self.source))

    def _compute(self, request: RunRequest) -> ProbeResult:
        operator = self._begin()
        return run_probe(operator, request) if self.runs is None else self.runs.run(request)

    def _begin(self) -> SymmetricOperator:
        assert self.operator is not None
        self.products_before = self.operator.num_matvecs
        self.begun += 1
        return self.operator


class GroupWorker(ProbeWorker):
    """One of several workers that compute each product together, each over its shard of the data."""

    def __init__(
        self, source: ShardableSource, threads: int, keeping: Keeping, rank: int, size: int, timeout_s: float
    ) -> None:
        """Keep what is needed; a peer that is silent for timeout_s within one step is taken for lost."""
        super().__init__(source, threads, keeping)
        self.rank, self.size = rank, size
        self.timeout = timedelta(seconds=timeout_s)

    @property
    def leads(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def meet(self) -> str:
        """Make the folder in which the group meets, open to this user alone; Ray removes it with its session."""
        return tempfile.mkdtemp(prefix="group-", dir=_session_folder())

    def join(self, folder: str) -> PeerLost | str:
        """Build this worker's shard, then wait for the others; return the name of this node.

        Here and below, a lost peer is an answer, not an error:
        Ray would print an error that nobody fetches, and whoever looks after a group stops at its first lost member.
        """
        self.source = _on_own_device(self.source)
        assert isinstance(self.source, ShardableSource)
        shard = self.source.build_shard(self.rank, self.size)
        try:
            self.group = process_group(folder, self.rank, self.size, self.timeout, shard.device)
        except PeerLost as lost:
            return lost
        self._keep(SummedOperator(shard, self.group) if self.rank == 0 else shard)
        return platform.node()

    def run(self, request: RunRequest) -> ProbeResult | PeerLost:
        """Run one probe; for rank 0, while the others `serve`."""
        assert isinstance(self.operator, SummedOperator)
        try:
            try:
                return self._compute(request)
            finally:
                self.operator.release()
        except PeerLost as lost:
            return lost

    def serve(self) -> PeerLost | None:
        """Multiply for rank 0 until its probe is done; for all other ranks."""
        try:
            serve(self._begin(), self.group)
        except PeerLost as lost:
            return lost
        return None


def _on_own_device(source: OperatorSource) -> OperatorSource:
    """Return the source for the device that this process was given, where it has a field that names one.

    Who planned the work may have no GPU, and the workers have, or the other way round.
    """
    device = _own_device()
    named: Any = source
    return replace(named, device=device) if hasattr(source, "device") else source


def _own_device() -> str:
    """Return "cuda" where Ray gave this process a GPU, else "cpu"; stop before all pile up on a node's first GPU.

    Raises:
        RuntimeError: this process sees more or fewer GPUs than it was given.
    """
    import ray

    if os.environ.get(ON_CPU):
        return "cpu"
    given, seen = len(ray.get_gpu_ids()), torch.cuda.device_count()
    if given and given != seen:
        raise RuntimeError(
            f"This worker sees {seen} GPUs and was given {given}. Expected: equal numbers; does something set "
            "CUDA_VISIBLE_DEVICES or RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES?"
        )
    return "cuda" if given else "cpu"


def _session_folder() -> str:
    import ray

    return str(ray._private.worker._global_node.get_session_dir_path())
