"""A node that dies in the middle of a probe costs time and no number: of several raylets on this machine one is killed.

Products wait at a gate until the node is gone, so a probe of its is in progress when it dies, however busy the machine.
"""

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data.hdf5 import open_sealed
from launchers import _ray_session
from launchers.probes import StandingMap, connected_probe_map
from suite.attempt import attempt
from suite.curvature.operators import CountedOperator, MatrixOperator, SymmetricOperator
from suite.curvature.probes import ProbeRequest
from suite.curvature.slq import ProbeMap, ProbeResult, inline_map, slq
from suite.plan import Cell, Plan
from suite.record import Record, read_record
from suite.store import Store

pytestmark = pytest.mark.slow
ray = pytest.importorskip("ray")
NUM_NODES = 4
NUM_STEPS = 30
AT_PRODUCT = 5
PATIENCE_S = 300  # a bound for a busy machine, never a measurement
REQUESTS = [ProbeRequest(5, index, "rademacher", NUM_STEPS) for index in range(8)]


class GatedOperator(CountedOperator):
    """The products of another operator; one is in progress until a file is there."""

    def __init__(self, inner: SymmetricOperator, gate: Path) -> None:
        super().__init__(inner.dim, inner.dtype, inner.device)
        self.inner, self.gate = inner, gate

    def _products(self, vectors: torch.Tensor) -> torch.Tensor:
        deadline_s = time.monotonic() + PATIENCE_S
        while self.num_matvecs == AT_PRODUCT and not self.gate.exists() and time.monotonic() < deadline_s:
            time.sleep(0.01)
        return self.inner.matmat(vectors)


@dataclass(frozen=True)
class GatedSource:
    """Builds what another source builds, with a gate."""

    inner: Any
    gate: Path

    def build(self) -> GatedOperator:
        return GatedOperator(self.inner.build(), self.gate)

    def build_shard(self, rank: int, size: int) -> GatedOperator:
        return GatedOperator(self.inner.build_shard(rank, size), self.gate)


@dataclass(frozen=True)
class RowsSource:
    """A fixed matrix of 60 rows, or the part of it that a share of 100 examples makes."""

    def build(self) -> MatrixOperator:
        return self.build_shard(0, 1)

    def build_shard(self, rank: int, size: int) -> MatrixOperator:
        rows = torch.randn(100, 60, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        part = rows.tensor_split(size)[rank]
        return MatrixOperator(part.T @ part / 100)


@pytest.fixture
def cluster(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Start NUM_NODES nodes with so many CPUs each, below a folder and with a token of their own; connect to the head.

    Ray's own test cluster is used; the file that it writes to be found by is inside the folder.
    """
    from ray.cluster_utils import Cluster

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    folder = Path(tempfile.mkdtemp(prefix="e-", dir=_ray_session._short_root()))
    before = dict(os.environ)
    token = {"RAY_AUTH_TOKEN_PATH": str(_ray_session.new_token(folder)), "RAY_TMPDIR": str(folder)}
    settings = _ray_session.SETTINGS | token
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    _ray_session._import_ray()
    node = {"num_cpus": request.param, "object_store_memory": 100 * 2**20, "include_dashboard": False}
    started = Cluster(initialize_head=True, head_node_args=node)
    try:
        for _ in range(NUM_NODES - 1):
            started.add_node(**node)
        ray.init(address=started.address, namespace=folder.name, log_to_driver=False, logging_level="error")
        yield started
    finally:
        ray.shutdown()
        started.shutdown()
        for name in set(os.environ) - set(before):
            monkeypatch.delenv(name)
        shutil.rmtree(folder, ignore_errors=True)


@dataclass
class NodeKiller:
    """A map during which one node is killed with everything on it, while a probe of its is known to be unfinished.

    Attributes:
        cluster: where it runs; the head node, which the test is connected to, is left alone.
        standing: runs the requests.
        gate: opened once the node is gone.
        killed: (request, its products so far) of what ran on the node.
    """

    cluster: Any
    standing: StandingMap
    gate: Path
    killed: list[tuple[Any, int]] = field(default_factory=list)

    def __call__(self, source: Any, requests: Sequence[Any]) -> Iterator[ProbeResult]:
        return self.standing.watched(self._look)(GatedSource(source, self.gate), requests)

    def _look(self, products: int) -> None:
        if self.killed or not products:
            return
        nodes = {node.node_id: node for node in self.cluster.worker_nodes}
        for team in self.standing._crew.teams if self.standing._crew else ():
            actors = [ray._private.state.actors(member._actor_id.hex()) for member in team.members]
            (where,) = {actor["Address"]["NodeID"] for actor in actors}
            if team.products and where in nodes:
                self.killed.append((team.request, team.products))
                self.cluster.remove_node(nodes[where], allow_graceful=False)
                for actor in actors:  # they outlive their raylet by a moment, in which they could finish their probe
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(actor["Pid"], signal.SIGKILL)
                self.gate.touch()
                return


def check_the_kill(killer: NodeKiller, restarts: dict[int, int]) -> None:
    """One node was killed, at a product of an unfinished probe, and that probe alone was begun again, once."""
    ((request, products),) = killer.killed
    assert 0 < products <= AT_PRODUCT < request.num_lanczos_steps
    assert {index: number for index, number in restarts.items() if number} == {request.index: 1}


def bits(results: list[ProbeResult]) -> list[tuple[int, bytes, bytes]]:
    return [
        (result.index, result.tridiagonal.diagonal.tobytes(), result.tridiagonal.off_diagonal.tobytes())
        for result in results
    ]


@pytest.mark.parametrize("cluster", [1], indirect=True)
def test_a_lost_node_costs_its_probe_a_restart(cluster: Any, tmp_path: Path) -> None:
    wanted = slq(RowsSource(), REQUESTS, map=inline_map)
    with connected_probe_map(1) as standing:
        assert standing.settings.num_actors == NUM_NODES
        killer = NodeKiller(cluster, standing, tmp_path / "gate")
        found = slq(RowsSource(), REQUESTS, map=killer)
    assert bits(found) == bits(wanted)
    check_the_kill(killer, {result.index: result.restarts for result in found})


@pytest.mark.parametrize("cluster", [2], indirect=True)
def test_a_lost_node_costs_its_group_a_restart(cluster: Any, tmp_path: Path) -> None:
    whole = slq(RowsSource(), REQUESTS, map=inline_map)
    with connected_probe_map(1, group_size=2) as standing:
        assert standing.settings.num_actors == 2 * NUM_NODES
        undisturbed = slq(RowsSource(), REQUESTS, map=standing)
        killer = NodeKiller(cluster, standing, tmp_path / "gate")
        found = slq(RowsSource(), REQUESTS, map=killer)
    assert bits(found) == bits(undisturbed)
    check_the_kill(killer, {result.index: result.restarts for result in found})
    for one, other in zip(found, whole, strict=True):
        for name in ("diagonal", "off_diagonal"):
            parts = getattr(one.tridiagonal, name), getattr(other.tridiagonal, name)
            np.testing.assert_allclose(*parts, rtol=0, atol=1e-10)


@pytest.fixture
def committed_dense(slow_plan: Plan, tmp_path: Path) -> tuple[Cell, Store]:
    """A spectrum cell of the slow study, and a store with all that it needs."""
    (spectrum,) = [cell for cell in slow_plan.cells if cell.id.kind == "spectrum"]
    store = Store(tmp_path / "study")
    store.prepare()
    for cell in slow_plan.cells:
        if cell.id in spectrum.inputs.values():
            assert attempt(cell, store.folder).status == "done"
    return spectrum, store


def spectrum_of(cell: Cell, store: Store, probe_map: ProbeMap) -> Record:
    outcome = attempt(cell, store.folder, probe_map=probe_map)
    assert outcome.status == "done", outcome.message
    with open_sealed(store.path(cell.id)) as file:
        return read_record(file)


@pytest.mark.parametrize("cluster", [1], indirect=True)
def test_a_spectrum_records_the_restart_among_its_timings(
    cluster: Any, committed_dense: tuple[Cell, Store], tmp_path: Path
) -> None:
    cell, store = committed_dense
    wanted = spectrum_of(cell, store, inline_map)
    store.path(cell.id).unlink()
    with connected_probe_map(cell.threads) as standing:
        killer = NodeKiller(cluster, standing, tmp_path / "gate")
        found = spectrum_of(cell, store, killer)
    (request, _) = killer.killed[0]
    check_the_kill(killer, {request.index: int(found.timings["restarts"])})
    assert (found.metrics, found.cost) == (wanted.metrics, wanted.cost)
    assert {name: array.tobytes() for name, array in found.arrays.items()} == {
        name: array.tobytes() for name, array in wanted.arrays.items()
    }
