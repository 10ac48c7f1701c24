"""A node that dies in the middle of a run costs time and no number: several raylets on this machine, one is killed."""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from launchers import _ray_session
from launchers.probes import connected_probe_map
from suite.curvature.operators import MatrixOperator
from suite.curvature.probes import ProbeRequest
from suite.curvature.slq import ProbeMap, ProbeResult, inline_map, slq

pytestmark = pytest.mark.slow
ray = pytest.importorskip("ray")
NUM_NODES = 4
REQUESTS = [ProbeRequest(5, index, "rademacher", 30) for index in range(8)]


class PatientOperator(MatrixOperator):
    """Takes its time, so that the kill comes in the middle of a probe."""

    def _products(self, vectors: torch.Tensor) -> torch.Tensor:
        time.sleep(0.1)
        return super()._products(vectors)


@dataclass(frozen=True)
class PatientSource:
    """A fixed matrix of 60 rows, or the part of it that a share of 100 examples makes."""

    def build(self) -> MatrixOperator:
        return MatrixOperator(self._part(0, 1))

    def build_shard(self, rank: int, size: int) -> PatientOperator:
        return PatientOperator(self._part(rank, size))

    def _part(self, rank: int, size: int) -> torch.Tensor:
        rows = torch.randn(100, 60, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        part = rows.tensor_split(size)[rank]
        return part.T @ part / 100


@dataclass(frozen=True)
class PatientWhole(PatientSource):
    """The same, slow also where it is built in one piece."""

    def build(self) -> MatrixOperator:
        return PatientOperator(self._part(0, 1))


@pytest.fixture
def cluster(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Start NUM_NODES nodes with so many CPUs each, below a folder and with a token of their own; connect to the head.

    Ray's own test cluster is used; the file that it writes to be found by is inside the folder.
    """
    from ray.cluster_utils import Cluster

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    folder = Path(tempfile.mkdtemp(prefix="e-", dir=_ray_session._short_root()))
    before = dict(os.environ)
    settings = _ray_session._settings(folder) | {"RAY_TMPDIR": str(folder)}
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


def losing_a_node(cluster: Any, inner: ProbeMap) -> ProbeMap:
    """A map during which, right after the first result, one node is killed with everything on it."""

    def run(source: Any, requests: Sequence[ProbeRequest]) -> Iterator[ProbeResult]:
        for number, result in enumerate(inner(source, requests)):
            if number == 0:
                cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
            yield result

    return run


def bits(results: list[ProbeResult]) -> list[tuple[int, bytes, bytes]]:
    return [
        (result.index, result.tridiagonal.diagonal.tobytes(), result.tridiagonal.off_diagonal.tobytes())
        for result in results
    ]


@pytest.mark.parametrize("cluster", [1], indirect=True)
def test_a_lost_node_costs_its_probe_a_restart(cluster: Any) -> None:
    wanted = slq(PatientSource(), REQUESTS, map=inline_map)
    with connected_probe_map(1) as standing:
        assert standing.settings.num_actors == NUM_NODES
        found = slq(PatientWhole(), REQUESTS, map=losing_a_node(cluster, standing))
    assert bits(found) == bits(wanted)
    assert sum(result.restarts for result in found) == 1


@pytest.mark.parametrize("cluster", [2], indirect=True)
def test_a_lost_node_costs_its_group_a_restart(cluster: Any) -> None:
    whole = slq(PatientSource(), REQUESTS, map=inline_map)
    with connected_probe_map(1, group_size=2) as standing:
        assert standing.settings.num_actors == 2 * NUM_NODES
        found = slq(PatientSource(), REQUESTS, map=losing_a_node(cluster, standing))
        places = [ray.util.placement_group_table(team.place) for team in standing._crew.teams if team.is_up]
        again = slq(PatientSource(), REQUESTS, map=standing)
    assert [len(set(place["bundles_to_node_id"].values())) for place in places] == [1] * len(places)
    assert sum(result.restarts for result in found) == 1
    assert bits(found) == bits(again)
    for one, other in zip(found, whole, strict=True):
        np.testing.assert_allclose(one.tridiagonal.diagonal, other.tridiagonal.diagonal, rtol=0, atol=1e-10)
