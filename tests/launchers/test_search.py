"""A search to a tolerance on Ray's actors: the bytes of one process, and no step is paid for twice."""

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from launchers._ray_session import ray_session
from launchers.probes import Keeping, RayProbeMap, StandingMap
from suite.curvature.growing_runs import KeepingMap
from suite.curvature.operators import MatrixOperator
from suite.curvature.pace import silent
from suite.curvature.probes import ProbeRequest
from suite.curvature.slq import ProbeResult, inline_map, slq
from suite.limits.adaptive import Target
from suite.measure.tolerance import Found, search_as_json, search_to_tolerance
from suite.networks.sources import StoredNetwork

ray = pytest.importorskip("ray")
TARGET = Target(tolerance=0.02, loss_tolerance_nats=0.05, max_dense_dim=0)


class TalliedOperator(MatrixOperator):
    """Leaves one byte per product in a file."""

    def __init__(self, matrix: torch.Tensor, tally: Path) -> None:
        super().__init__(matrix)
        self.tally = tally

    def _products(self, vectors: torch.Tensor) -> torch.Tensor:
        with self.tally.open("ab") as file:
            file.write(b"." * vectors.shape[1])
        return super()._products(vectors)


@dataclass(frozen=True)
class TalliedSource:
    """A fixed matrix of 60 rows. Leaves its process's number beside the tally."""

    folder: Path

    def build(self) -> TalliedOperator:
        (self.folder / f"pid-{os.getpid()}").touch()
        matrix = torch.randn(60, 60, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        return TalliedOperator(matrix + matrix.T, self.folder / "tally")

    def num_products(self) -> int:
        """Return how many there were since the last question."""
        tally = self.folder / "tally"
        number = tally.stat().st_size
        tally.unlink()
        return number


def bits(results: list[ProbeResult]) -> list[tuple[Any, ...]]:
    found = [(each.request, each.tridiagonal) for each in results]
    return [
        (request, run.diagonal.tobytes(), run.off_diagonal.tobytes(), float(run.residual_norm).hex(), run.status)
        for request, run in found
    ]


def everything(found: Found) -> tuple[Any, ...]:
    """All that a search finds, bit for bit."""
    assert found.removed is not None
    return bits([*found.probes, found.removed]), found.limits.predictions, search_as_json(found, TARGET)


@pytest.fixture(scope="module")
def session() -> Iterator[Any]:
    """One Ray for the whole module; its workers cannot import this file, so its classes travel by value."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with ray_session(2, 0) as started:
        yield started


def test_two_actors_search_as_one_process_does(session: Any, network: StoredNetwork) -> None:
    loaded = network.load()
    wanted = search_to_tolerance(network, loaded, TARGET, inline_map, silent)
    with RayProbeMap(2, threads=1).standing() as standing:
        found = search_to_tolerance(network, loaded, TARGET, standing, silent)
    steps = [check.num_lanczos_steps for check in wanted.limits.checks]
    assert steps[0] < steps[-1]  # runs were gone on with
    assert everything(found) == everything(wanted)


def test_kept_runs_pay_for_new_steps_alone_also_from_the_folder(
    session: Any, gone: Callable[[list[int]], bool], tmp_path: Path
) -> None:
    source, saved = TalliedSource(tmp_path), tmp_path / "saved"
    short, long = (ProbeRequest(5, 0, "rademacher", steps) for steps in (4, 9))
    wanted = bits(slq(source, [long], map=inline_map))
    (tmp_path / f"pid-{os.getpid()}").unlink()
    source.num_products()
    with RayProbeMap(1, threads=1).standing() as standing:
        for request in (short, long):
            slq(source, [request], map=standing)
        assert source.num_products() == 4 + 9
        before = [int(path.name.removeprefix("pid-")) for path in tmp_path.glob("pid-*")]
        standing.kept(saved)
        assert gone(before)
        slq(source, [short], map=standing)
        assert bits(slq(source, [long], map=standing)) == wanted
        assert source.num_products() == 9
        assert bits(slq(source, [long], map=standing.kept(saved))) == wanted
        assert source.num_products() == 1  # which showed that the run is this operator's


@pytest.mark.parametrize(
    ("own", "given", "expected"),
    [(None, None, None), (None, "saved", "saved"), ("own", None, "own"), ("own", "saved", "saved")],
)
def test_a_map_that_is_told_to_keep_runs_stays_itself_and_ends_its_actors(
    own: str | None, given: str | None, expected: str | None
) -> None:
    settings = RayProbeMap(2, threads=1, keeping=Keeping(folder=own and Path(own)))
    standing, dismissed = StandingMap(settings), []
    crew = SimpleNamespace(dismiss=lambda: dismissed.append(True), hosts=Counter())
    standing._crew = crew  # type: ignore[assignment]
    assert isinstance(standing, KeepingMap)
    assert standing.kept(given and Path(given)) is standing
    assert standing.settings.keeping == Keeping(runs=True, folder=expected and Path(expected))
    assert (dismissed, standing._crew) == ([True], None)
    assert settings.keeping == Keeping(folder=own and Path(own))  # those of other maps are left alone
