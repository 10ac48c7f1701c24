"""Who is hired, who stays, and which worker is asked."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from launchers._crew import Crew, Job, identity
from launchers._team import Patience, Shape, Team
from launchers.probes import RayProbeMap, connected_probe_map, probe_map
from suite.curvature.probes import ProbeRequest
from suite.curvature.slq import ProbeMap, ProbeResult, slq
from suite.errors import UserError
from tests.launchers.rows import RowsSource, WholeSource, bits, pids, requests

ray = pytest.importorskip("ray")
Gone = Callable[[list[int]], bool]


def once_hired(number: int, folder: Path, standing: ProbeMap) -> list[int]:
    """Ask until every worker has come: on a busy machine the first may do all probes before the second is up."""
    for _ in range(1_000):
        if len(pids(folder)) == number:
            return pids(folder)
        slq(RowsSource(folder), requests(3), map=standing)
    pytest.fail(f"{len(pids(folder))} workers came, not {number}")


def test_workers_stay_while_the_source_does(session: Any, gone: Gone, tmp_path: Path) -> None:
    with connected_probe_map(1, num_actors=2) as standing:
        short = slq(RowsSource(tmp_path), requests(3), map=standing)
        before = once_hired(2, tmp_path, standing)
        assert bits(slq(RowsSource(tmp_path), requests(3, 20), map=standing)) != bits(short)
        assert bits(slq(RowsSource(tmp_path), requests(3), map=standing)) == bits(short)
        assert pids(tmp_path) == before
        os.kill(before[0], signal.SIGKILL)
        assert bits(slq(RowsSource(tmp_path), requests(3), map=standing)) == bits(short)
        other = replace(RowsSource(tmp_path), product_s=0.001)
        old = pids(tmp_path)
        assert bits(slq(other, requests(3), map=standing)) == bits(short)
        assert gone(old)
    assert gone(pids(tmp_path))
    assert session.is_initialized()


def test_a_caller_that_stops_listening_may_ask_again(session: Any, tmp_path: Path) -> None:
    with RayProbeMap(2, threads=1).standing() as standing:
        results = standing(RowsSource(tmp_path), requests(6))
        first = next(results)
        with pytest.raises(RuntimeError, match="one call at a time"):
            next(standing(RowsSource(tmp_path), requests(1)))
        results.close()  # type: ignore[attr-defined]
        again = slq(RowsSource(tmp_path), requests(6), map=standing)
        assert bits([again[first.index]]) == bits([first])
        assert len(pids(tmp_path)) <= 2


def test_speed_and_remaining_time_are_told_while_probes_run(session: Any, tmp_path: Path) -> None:
    told: list[tuple[float, str]] = []
    source = RowsSource(tmp_path, product_s=0.1)
    slq(source, requests(2, 30), map=RayProbeMap(2, threads=1), advance=lambda *each: told.append(each))
    fractions = [fraction for fraction, _ in told]
    assert len(fractions) >= 4
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert told[0][1].startswith("probe 0 of 2, ")
    assert told[0][1].endswith(" s left")


def test_no_place_is_an_error_that_says_what_there_is(session: Any, tmp_path: Path) -> None:
    patience = Patience(hire_s=1.0)
    with pytest.raises(UserError, match=r"No place for a worker with 64 CPUs .*: no node is large.* have: 4 CPUs and"):
        slq(RowsSource(tmp_path), requests(1), map=RayProbeMap(1, threads=64, patience=patience))
    with pytest.raises(UserError, match="No place for 3 workers with 2 CPUs each on one node"):
        slq(RowsSource(tmp_path), requests(1), map=RayProbeMap(3, threads=2, group_size=3, patience=patience))


def test_a_source_without_shards_is_refused(session: Any) -> None:
    with pytest.raises(UserError, match="WholeSource cannot be built in shards"):
        slq(WholeSource(), requests(1), map=RayProbeMap(2, threads=1, group_size=2))


@pytest.mark.parametrize("group_size", [0, 3])
def test_a_group_is_no_larger_than_all_workers(group_size: int) -> None:
    with (
        pytest.raises(UserError, match=f"group_size={group_size} does not go with 2 workers"),
        probe_map(2, 1, group_size),
    ):
        pass


def test_no_connection_no_map(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(UserError, match="not connected to Ray"), connected_probe_map(1):
        pass


def idle_team() -> Team:
    return Team([], None, [], is_up=True)


def busy_team(request: ProbeRequest, seconds: float = 0.0) -> Team:
    return Team([], None, ["reference"], is_up=True, request=request, begun_s=time.monotonic() - seconds)


def crew_of(*teams: Team) -> Crew:
    crew = Crew(None, 4, Shape(1, 1, 0), Patience())  # type: ignore[arg-type]
    crew.teams = list(teams)
    return crew


def job_of(*waiting: ProbeRequest) -> Job:
    return Job(list(waiting), lambda _: None)


def test_a_request_goes_where_it_ran_before() -> None:
    one, other = idle_team(), idle_team()
    crew, (first, second) = crew_of(one, other), requests(2)
    crew.homes = {identity(first): other, identity(second): one}
    longer = [replace(each, num_lanczos_steps=99) for each in (first, second)]
    assert crew._choice(one, job_of(*longer)) == longer[1]
    assert crew._choice(other, job_of(*longer)) == longer[0]


def test_who_has_nothing_of_its_own_takes_what_ran_nowhere() -> None:
    one = idle_team()
    crew, (first, second) = crew_of(one), requests(2)
    crew.homes = {identity(first): busy_team(second)}
    assert crew._choice(one, job_of(first, second)) == second


def test_a_request_waits_for_its_team_unless_that_will_take_long() -> None:
    one, (first, second, third) = idle_team(), requests(3)
    busy = busy_team(third)
    crew = crew_of(one, busy)
    crew.homes = {identity(first): busy, identity(second): busy}
    assert crew._choice(one, job_of(first)) is None
    assert crew._choice(one, job_of(first, second)) == first
    late = job_of(first)
    late.reissued[third] += 1
    assert crew._choice(one, late) == first
    assert crew._choice(one, job_of()) is None


@pytest.mark.parametrize(
    ("finished_s", "running_s", "slow"),
    [([], 1e6, False), ([10.0, 12.0, 500.0], 47.0, False), ([10.0, 12.0, 500.0], 49.0, True), ([0.1], 9.0, False)],
)
def test_slow_is_measured_by_the_median_of_finished_probes(
    finished_s: list[float], running_s: float, slow: bool
) -> None:
    (request,) = requests(1)
    crew, job = crew_of(busy_team(request, running_s), idle_team()), job_of(request)
    job.seconds = {request.num_lanczos_steps: finished_s, 1: [0.001]}
    assert crew._slow(job) == (request if slow else None)
    crew.teams.append(busy_team(request))  # a second team has been asked
    assert crew._slow(job) is None


def test_the_second_answer_to_a_request_is_dropped() -> None:
    (request,) = requests(1)
    job = job_of(request)
    job.reissued[request] += 1
    result = ProbeResult(0, 5, None, 1.0)  # type: ignore[arg-type]
    closed = job.close(request, result, 2.0)
    assert closed is not None
    assert (closed.reissued, closed.restarts, job.waiting) == (1, 0, [])
    assert job.close(request, result, 3.0) is None
    assert job.seconds == {12: [2.0]}
