"""Limits with a fixed effort over Ray actors: every run is theirs, those from removed weights as well."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from launchers.probes import RayProbeMap
from suite.curvature.probes import RemovedWeightsRequest, RunRequest
from suite.curvature.slq import OperatorSource, ProbeMap, ProbeResult
from suite.measure import Effort, measure_limits
from suite.networks.sources import StoredNetwork

pytest.importorskip("ray")
EFFORT = Effort(num_probes=2, num_lanczos_steps=8)


class Recorded:
    """A map that remembers what went through another one."""

    def __init__(self, inner: ProbeMap) -> None:
        self.inner = inner
        self.results: list[ProbeResult] = []

    def __call__(self, source: OperatorSource, requests: Sequence[RunRequest]) -> Iterator[ProbeResult]:
        for result in self.inner(source, requests):
            self.results.append(result)
            yield result


def test_two_actors_give_the_limits_of_one_process(session: Any, network: StoredNetwork) -> None:
    wanted = measure_limits(network, EFFORT, loss_tolerance_nats=0.05).values
    with RayProbeMap(2, threads=1).standing() as standing:
        recorded = Recorded(standing)
        found = measure_limits(network, EFFORT, loss_tolerance_nats=0.05, probe_map=recorded).values
        assert sum(standing.hosts.values()) <= 2  # they stay from run to run
    assert found == wanted | {"threads": 1}
    assert found["num_matvecs"] == sum(result.tridiagonal.num_lanczos_steps for result in recorded.results)
    assert any(isinstance(result.request, RemovedWeightsRequest) for result in recorded.results)


def test_a_group_shares_the_runs_from_removed_weights(session: Any, network: StoredNetwork) -> None:
    source = replace(network, dtype="float64")
    wanted = measure_limits(source, EFFORT, loss_tolerance_nats=0.05).values
    with RayProbeMap(2, threads=1, group_size=2).standing() as standing:
        recorded = Recorded(standing)
        found = measure_limits(source, EFFORT, loss_tolerance_nats=0.05, probe_map=recorded).values
        assert sum(standing.hosts.values()) == 2
    assert found["num_matvecs"] == wanted["num_matvecs"]
    assert found["num_matvecs"] == sum(result.tridiagonal.num_lanczos_steps for result in recorded.results)
    for name in ("gaussian_width", "statistical_dimension"):
        assert found[name]["sparsity_limit"] == pytest.approx(wanted[name]["sparsity_limit"], abs=1e-9)
