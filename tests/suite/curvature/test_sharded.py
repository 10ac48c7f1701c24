"""The processes of a group as threads of this one: each has its own process group over a private file."""

import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import distributed, nn

from suite.curvature.operators import HessianOperator, MatrixOperator
from suite.curvature.probes import ProbeRequest
from suite.curvature.sharded import PeerLost, SummedOperator, serve
from suite.curvature.slq import run_probe

TIMEOUT = timedelta(seconds=30)


def shards(size: int, dtype: torch.dtype = torch.float64) -> list[HessianOperator]:
    """The Hessian of a small network over 50 examples, in parts; of one part, the whole."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(50, 6, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, 3, (50,), generator=generator)

    def shard(rank: int) -> HessianOperator:
        with torch.random.fork_rng():
            torch.manual_seed(7)
            model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
        batch = (inputs.tensor_split(size)[rank], targets.tensor_split(size)[rank])
        return HessianOperator(model, ["0.weight", "2.weight"], [batch], dtype, num_examples=50)

    return [shard(rank) for rank in range(size)]


def together(
    folder: Path, parts: list[Any], lead: Callable[[SummedOperator], Any], timeout: timedelta = TIMEOUT
) -> dict[int, Any]:
    """Run lead on rank 0 and serve on the others; return rank -> what came of it, exceptions included."""
    found: dict[int, Any] = {}

    def work(rank: int) -> None:
        try:
            store = distributed.FileStore(str(folder / "store"), len(parts))
            group = distributed.ProcessGroupGloo(store, rank, len(parts), timeout)
            if rank:
                found[rank] = serve(parts[rank], group)
            else:
                operator = SummedOperator(parts[0], group)
                try:
                    found[0] = lead(operator)
                finally:
                    operator.release()
        except Exception as error:
            found[rank] = error

    threads = [threading.Thread(target=work, args=(rank,), daemon=True) for rank in range(len(parts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    return found


@pytest.fixture(autouse=True)
def loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_products_of_all_shards_add_up_to_those_of_the_whole(size: int, tmp_path: Path) -> None:
    (whole,) = shards(1)
    vectors = torch.randn(whole.dim, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    before = vectors.clone()
    found = together(tmp_path, shards(size), lambda operator: (operator.matmat(vectors), operator.num_matvecs))
    products, num_matvecs = found[0]
    assert torch.equal(vectors, before)
    assert num_matvecs == 4
    assert [found[rank] for rank in range(1, size)] == [4] * (size - 1)
    assert torch.allclose(products, whole.matmat(vectors), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_probe_over_shards_is_that_over_the_whole_to_rounding(size: int, tmp_path: Path) -> None:
    request = ProbeRequest(3, 1, "rademacher", 20)
    wanted = run_probe(shards(1)[0], request).tridiagonal
    found = together(tmp_path, shards(size), lambda operator: run_probe(operator, request))[0].tridiagonal
    np.testing.assert_allclose(found.diagonal, wanted.diagonal, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(found.off_diagonal, wanted.off_diagonal, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_same_group_gives_the_same_bits(dtype: torch.dtype, tmp_path: Path) -> None:
    request = ProbeRequest(3, 1, "normal", 12)
    results = []
    for name in "ab":
        (tmp_path / name).mkdir()
        found = together(tmp_path / name, shards(3, dtype), lambda operator: run_probe(operator, request))
        results.append(found[0].tridiagonal)
    assert results[0].diagonal.tobytes() == results[1].diagonal.tobytes()
    assert results[0].off_diagonal.tobytes() == results[1].off_diagonal.tobytes()


def test_it_offers_what_its_shard_offers(tmp_path: Path) -> None:
    parts = shards(2)
    found = together(tmp_path, parts, lambda operator: operator.weights())
    assert torch.equal(found[0], parts[0].weights())
    with pytest.raises(AttributeError):
        _ = SummedOperator(parts[0], None).nonsense  # type: ignore[arg-type]


def test_an_error_in_the_first_lets_the_others_go(tmp_path: Path) -> None:
    def lead(operator: SummedOperator) -> Any:
        operator.matvec(torch.ones(operator.dim, dtype=torch.float64))
        return run_probe(operator, ProbeRequest(0, 0, "normal", 1000))

    found = together(tmp_path, shards(3), lead)
    assert "num_lanczos_steps=1000 is too large" in str(found[0])
    assert [found[rank] for rank in (1, 2)] == [1, 1]


class Failing(MatrixOperator):
    def _products(self, vectors: torch.Tensor) -> torch.Tensor:
        raise ArithmeticError(f"no word from here on, {len(vectors)} numbers or none")


def run_one_product(folder: Path, *kinds: type[MatrixOperator]) -> dict[int, Any]:
    matrix = torch.eye(5, dtype=torch.float64)
    parts = [kind(matrix) for kind in kinds]
    return together(folder, parts, lambda operator: operator.matvec(matrix[0]), timedelta(seconds=1))


def test_a_silent_peer_is_an_error_and_no_hang(tmp_path: Path) -> None:
    found = run_one_product(tmp_path, MatrixOperator, Failing)
    assert isinstance(found[0], PeerLost)
    assert str(found[0]).startswith("a process of the group is lost: ")
    assert isinstance(found[1], ArithmeticError)


def test_an_error_in_a_product_of_the_first_is_told_as_it_is(tmp_path: Path) -> None:
    found = run_one_product(tmp_path, Failing, MatrixOperator)
    assert isinstance(found[0], ArithmeticError)
    assert isinstance(found[1], PeerLost)
