import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from launchers._ray_session import ray_session
from launchers.probes import MAX_RESTARTS, RayProbeMap, probe_map
from suite.curvature.operators import DiagonalOperator
from suite.curvature.probes import ProbeRequest
from suite.curvature.slq import ProbeResult, inline_map, slq
from suite.errors import UserError
from suite.networks.sources import StoredNetwork

ray = pytest.importorskip("ray")
Gone = Callable[[list[int]], bool]


class MortalOperator(DiagonalOperator):
    """Kills its process at the n-th product, as often as there are tokens to take in a folder."""

    def __init__(self, eigenvalues: torch.Tensor, folder: Path, at_product: int) -> None:
        super().__init__(eigenvalues)
        self.folder, self.at_product = folder, at_product

    def _products(self, vectors: torch.Tensor) -> torch.Tensor:
        if self.num_matvecs >= self.at_product and took_token(self.folder):
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._products(vectors)


@dataclass(frozen=True)
class MortalSource:
    """Leaves its process's number in the folder. at_product 0 dies while the operator is built."""

    folder: Path
    at_product: int

    def build(self) -> MortalOperator:
        (self.folder / f"pid-{os.getpid()}").touch()
        if self.at_product == 0 and took_token(self.folder):
            os.kill(os.getpid(), signal.SIGKILL)
        return MortalOperator(torch.linspace(0.0, 3.0, 60, dtype=torch.float64), self.folder, self.at_product)


@dataclass(frozen=True)
class BrokenSource:
    def build(self) -> DiagonalOperator:
        raise ArithmeticError("no operator today")


def took_token(folder: Path) -> bool:
    for token in sorted(folder.glob("token-*")):
        try:
            token.unlink()
        except FileNotFoundError:  # another actor was faster
            continue
        return True
    return False


def put_tokens(folder: Path, number: int) -> None:
    for index in range(number):
        (folder / f"token-{index}").touch()


def pids(folder: Path) -> list[int]:
    return [int(path.name.removeprefix("pid-")) for path in folder.glob("pid-*")]


def requests(number: int, steps: int = 12) -> list[ProbeRequest]:
    return [ProbeRequest(5, index, "rademacher", steps) for index in range(number)]


def numbers(results: list[ProbeResult]) -> list[tuple[Any, ...]]:
    """Everything but seconds and restarts, bit for bit."""
    return [
        (
            result.index,
            result.seed,
            np.asarray(result.tridiagonal.diagonal).tobytes(),
            np.asarray(result.tridiagonal.off_diagonal).tobytes(),
            float(result.tridiagonal.residual_norm).hex(),
            result.tridiagonal.status,
        )
        for result in results
    ]


@pytest.fixture(scope="module")
def session() -> Iterator[Any]:
    """One Ray for the whole module; its workers cannot import this file, so its classes travel by value."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with ray_session(4, 0) as started:
        yield started


@pytest.mark.parametrize("num_actors", [1, 2, pytest.param(4, marks=pytest.mark.slow)])
def test_actors_give_the_numbers_of_a_for_loop(num_actors: int, session: Any, network: StoredNetwork) -> None:
    wanted = slq(network, requests(5), map=inline_map)
    found = slq(network, requests(5), map=RayProbeMap(num_actors, threads=1))
    assert numbers(found) == numbers(wanted)
    assert [result.restarts for result in found] == [0] * 5


def test_a_group_gives_the_numbers_of_the_whole_to_rounding(session: Any, network: StoredNetwork) -> None:
    source = replace(network, dtype="float64")
    wanted = slq(source, requests(2), map=inline_map)
    found = slq(source, requests(2), map=RayProbeMap(2, threads=1, group_size=2))
    for one, other in zip(found, wanted, strict=True):
        for name in ("diagonal", "off_diagonal"):
            parts = getattr(one.tridiagonal, name), getattr(other.tridiagonal, name)
            np.testing.assert_allclose(*parts, rtol=1e-10, atol=1e-10)


def test_no_more_actors_than_probes_and_none_left_afterwards(session: Any, gone: Gone, tmp_path: Path) -> None:
    slq(MortalSource(tmp_path, 1), requests(2), map=RayProbeMap(4, threads=1))
    assert 1 <= len(pids(tmp_path)) <= 2  # one may do both before the other is up
    assert gone(pids(tmp_path))


def test_no_probes_need_no_actor(session: Any, tmp_path: Path) -> None:
    assert slq(MortalSource(tmp_path, 1), [], map=RayProbeMap(2, threads=1)) == []
    assert pids(tmp_path) == []


@pytest.mark.parametrize("num_kills", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_a_lost_actor_costs_its_probe_a_restart_and_no_number(
    num_kills: int, session: Any, gone: Gone, tmp_path: Path
) -> None:
    source = MortalSource(tmp_path, 4)
    wanted = slq(source, requests(3), map=inline_map)
    os.unlink(tmp_path / f"pid-{os.getpid()}")
    put_tokens(tmp_path, num_kills)
    found = slq(source, requests(3), map=RayProbeMap(2, threads=1))
    assert numbers(found) == numbers(wanted)
    assert sum(result.restarts for result in found) == num_kills
    assert 1 + num_kills <= len(pids(tmp_path)) <= 2 + num_kills
    assert gone(pids(tmp_path))


def test_an_actor_lost_while_it_builds_is_replaced(session: Any, tmp_path: Path) -> None:
    put_tokens(tmp_path, 1)
    found = slq(MortalSource(tmp_path, 0), requests(2), map=RayProbeMap(1, threads=1))
    assert [result.restarts for result in found] == [0, 0]  # no probe had begun
    assert len(pids(tmp_path)) == 2


@pytest.mark.parametrize("at_product", [pytest.param(0, marks=pytest.mark.slow), 4])
def test_whoever_always_kills_its_actor_ends_with_an_error(
    at_product: int, session: Any, gone: Gone, tmp_path: Path
) -> None:
    put_tokens(tmp_path, 100)
    with pytest.raises(UserError, match="lost 4 workers"):
        slq(MortalSource(tmp_path, at_product), requests(2), map=RayProbeMap(1, threads=1))
    assert len(pids(tmp_path)) == 1 + MAX_RESTARTS
    assert gone(pids(tmp_path))


def test_an_error_in_an_actor_is_raised_here_and_not_tried_again(session: Any) -> None:
    with pytest.raises(ArithmeticError, match="no operator today"):
        slq(BrokenSource(), requests(2), map=RayProbeMap(2, threads=1))


def test_who_stops_listening_leaves_no_actor(session: Any, gone: Gone, tmp_path: Path) -> None:
    results = RayProbeMap(2, threads=1)(MortalSource(tmp_path, 1), requests(6))
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert gone(pids(tmp_path))


def test_one_worker_needs_no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("launchers.probes.ray_session", None)
    with probe_map(1) as chosen:
        assert chosen is inline_map


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], dict[str, int]]:
    """Return a function that pretends to be a machine with processors and GPUs; it returns what Ray is given."""

    def pretend(threads: int, gpus: int) -> dict[str, int]:
        given: dict[str, int] = {}

        @contextmanager
        def session(num_cpus: int, num_gpus: int) -> Iterator[None]:
            given.update(cpus=num_cpus, gpus=num_gpus)
            yield

        monkeypatch.setattr("launchers.probes.ray_session", session)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
        monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
        return given

    return pretend


@pytest.mark.parametrize(
    ("workers", "gpus", "actors", "threads"), [(2, 8, 2, 32), (8, 8, 8, 8), (9, 2, 2, 32), (2, 1, 1, 64), (4, 0, 4, 16)]
)
def test_workers_share_the_processors_and_no_more_gpus_are_taken_than_workers(
    workers: int, gpus: int, actors: int, threads: int, machine: Callable[[int, int], dict[str, int]]
) -> None:
    given = machine(64, gpus)
    with probe_map(workers) as standing:
        settings = standing.settings  # type: ignore[attr-defined]
    assert (settings.num_actors, settings.threads) == (actors, threads)
    assert settings.gpus_per_actor == (1 if gpus else 0)
    assert given == {"cpus": actors * threads, "gpus": actors if gpus else 0}


def test_a_group_that_has_too_few_gpus_is_told_of_them(machine: Callable[[int, int], dict[str, int]]) -> None:
    machine(8, 1)
    with pytest.raises(UserError, match=r"group_size=2 needs 2 GPUs.*GPUs here: 1\."), probe_map(2, group_size=2):
        pass
    machine(8, 4)
    with probe_map(4, group_size=2) as standing:
        assert standing.settings.num_actors == 4  # type: ignore[attr-defined]
