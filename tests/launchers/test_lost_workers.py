"""What becomes of slow, silent and lost workers, alone and in groups, whose numbers are those of the whole."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from launchers._team import Patience
from launchers.probes import RayProbeMap
from suite.curvature.slq import ProbeResult, slq
from tests.launchers.rows import RowsSource, bits, pids, requests

pytest.importorskip("ray")
Gone = Callable[[list[int]], bool]
Undisturbed = Callable[[int], list[ProbeResult]]


@pytest.fixture(scope="module")
def one_pair(session: Any, tmp_path_factory: pytest.TempPathFactory) -> list[ProbeResult]:
    """Four probes by one group of two, to which nothing happens."""
    source = RowsSource(tmp_path_factory.mktemp("pair"))
    return slq(source, requests(4), map=RayProbeMap(2, threads=1, group_size=2))


def assert_near(found: list[ProbeResult], wanted: list[ProbeResult]) -> None:
    for one, other in zip(found, wanted, strict=True):
        for name in ("diagonal", "off_diagonal"):
            parts = getattr(one.tridiagonal, name), getattr(other.tridiagonal, name)
            np.testing.assert_allclose(*parts, rtol=0, atol=1e-10)


def test_a_group_agrees_with_the_whole_to_rounding(one_pair: list[ProbeResult], undisturbed: Undisturbed) -> None:
    assert_near(one_pair, undisturbed(4))


@pytest.mark.slow
def test_two_groups_agree_with_one_in_every_bit(
    session: Any, gone: Gone, tmp_path: Path, one_pair: list[ProbeResult]
) -> None:
    found = slq(RowsSource(tmp_path), requests(4), map=RayProbeMap(4, threads=1, group_size=2))
    assert bits(found) == bits(one_pair)
    assert gone(pids(tmp_path))


@pytest.mark.slow
def test_a_group_of_three_agrees_with_the_whole(session: Any, tmp_path: Path, undisturbed: Undisturbed) -> None:
    assert_near(slq(RowsSource(tmp_path), requests(2), map=RayProbeMap(4, threads=1, group_size=3)), undisturbed(2))
    assert len(pids(tmp_path)) == 3  # four workers make one group of three


@pytest.mark.parametrize("deed", ["kill", pytest.param("stop", marks=pytest.mark.slow)])
def test_a_lost_member_costs_its_group_and_no_bit(
    deed: str, session: Any, gone: Gone, tmp_path: Path, one_pair: list[ProbeResult]
) -> None:
    pair = RayProbeMap(2, threads=1, group_size=2, patience=Patience(silence_s=2.0))
    (tmp_path / "token-0").touch()
    found = slq(RowsSource(tmp_path, deed), requests(4), map=pair)
    assert bits(found) == bits(one_pair)
    assert [result.restarts for result in found] == [1, 0, 0, 0]
    assert len(pids(tmp_path)) == 4
    assert gone(pids(tmp_path))


@pytest.mark.parametrize(
    ("deed", "patience"),
    [("stop", Patience(silence_s=2.0)), pytest.param("sleep", Patience(stall_s=3.0), marks=pytest.mark.slow)],
)
def test_a_worker_that_hangs_is_replaced(
    deed: str, patience: Patience, session: Any, gone: Gone, tmp_path: Path, undisturbed: Undisturbed
) -> None:
    (tmp_path / "token-0").touch()
    found = slq(RowsSource(tmp_path, deed), requests(2), map=RayProbeMap(1, threads=1, patience=patience))
    assert bits(found) == bits(undisturbed(2))
    assert [result.restarts for result in found] == [1, 0]
    assert len(pids(tmp_path)) == 2
    assert gone(pids(tmp_path))


def test_a_slow_probe_is_given_to_a_second_worker(
    session: Any, gone: Gone, tmp_path: Path, undisturbed: Undisturbed
) -> None:
    (tmp_path / "token-0").touch()
    patience = Patience(slow_floor_s=1.0)
    found = slq(RowsSource(tmp_path, "sleep"), requests(4), map=RayProbeMap(2, threads=1, patience=patience))
    assert bits(found) == bits(undisturbed(4))
    assert [result.restarts for result in found] == [0] * 4
    assert sum(result.reissued for result in found) == 1
    assert gone(pids(tmp_path))
