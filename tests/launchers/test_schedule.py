import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from launchers._schedule import Schedule
from suite.attempt import Outcome
from suite.claim import claimed
from suite.plan import Cell, Plan
from suite.record import Record
from suite.store import CellId, Store
from suite.study import Study

Needs = dict[str, list[str]]
STUDY = Study(name="x", tasks=("x",), analyses=("spectrum",), seeds=(0,))


def cell_id(name: str, kind: str = "dense") -> CellId:
    return CellId(kind, f"{name:0<64}")


def plan_of(needs: Needs, kinds: dict[str, str] | None = None) -> Plan:
    """A plan from name -> names of its inputs, in the order given."""
    ids = {name: cell_id(name, (kinds or {}).get(name, "dense")) for name in needs}
    cells = [
        Cell(ids[name], {}, {f"input {other}": ids[other] for other in others}, name, 1)
        for name, others in needs.items()
    ]
    return Plan(STUDY, {}, tuple(cells), ())


def schedule_of(needs: Needs, folder: Path, kinds: dict[str, str] | None = None) -> Schedule:
    (folder / "cells").mkdir(exist_ok=True)
    return Schedule(plan_of(needs, kinds), Store(folder))


def drained(schedule: Schedule) -> Iterator[str]:
    """Run everything, one cell at a time, and yield the titles."""
    while (cell := schedule.next()) is not None:
        yield cell.title
        schedule.finish(Outcome(cell.id, "done"))


def test_the_longest_way_goes_first(tmp_path: Path) -> None:
    needs: Needs = {"a": [], "b": [], "b1": ["b"], "b2": ["b1"], "c": [], "c1": ["c"]}
    assert list(drained(schedule_of(needs, tmp_path))) == ["b", "b1", "c", "a", "b2", "c1"]


def test_a_priority_goes_before_a_long_way(tmp_path: Path) -> None:
    needs: Needs = {"a": [], "a1": ["a"], "oracle": []}
    assert list(drained(schedule_of(needs, tmp_path, {"oracle": "dense_hessian"}))) == ["oracle", "a", "a1"]


def test_among_equals_the_plan_decides(tmp_path: Path) -> None:
    assert list(drained(schedule_of({name: [] for name in "cab"}, tmp_path))) == ["c", "a", "b"]


def test_nothing_is_ready_while_an_input_runs(tmp_path: Path) -> None:
    schedule = schedule_of({"a": [], "b": ["a"]}, tmp_path)
    first = schedule.next()
    assert first is not None
    assert schedule.next() is None
    assert not schedule.finished
    schedule.finish(Outcome(first.id, "done"))
    second = schedule.next()
    assert second is not None
    assert second.title == "b"
    schedule.finish(Outcome(second.id, "done"))
    assert schedule.finished


def test_a_cell_put_back_comes_again(tmp_path: Path) -> None:
    schedule = schedule_of({"a": [], "b": ["a"]}, tmp_path)
    first = schedule.next()
    assert first is not None
    schedule.again(first)
    assert list(drained(schedule)) == ["a", "b"]


def test_a_failure_takes_all_that_needs_it_once_and_names_the_root(tmp_path: Path) -> None:
    needs: Needs = {"a": [], "left": ["a"], "right": ["a"], "both": ["left", "right"], "last": ["both"], "other": []}
    schedule = schedule_of(needs, tmp_path)
    assert schedule.next() is not None
    ended = schedule.finish(Outcome(cell_id("a"), "failed", "why"))
    assert [outcome.cell for outcome in ended].count(cell_id("both")) == 1
    assert {outcome.cell for outcome in ended} == {cell_id(name) for name in needs} - {cell_id("other")}
    assert {outcome.message for outcome in ended[1:]} == {f"needs {cell_id('a').name}"}
    assert {outcome.status for outcome in ended[1:]} == {"upstream_failed"}
    assert {outcome.attempts for outcome in ended[1:]} == {0}
    assert list(drained(schedule)) == ["other"]
    assert schedule.finished


def test_a_cell_waits_for_its_last_input_even_if_the_first_failed(tmp_path: Path) -> None:
    schedule = schedule_of({"a": [], "b": [], "both": ["a", "b"]}, tmp_path)
    schedule.next()
    schedule.next()
    schedule.finish(Outcome(cell_id("a"), "failed", "why"))
    assert schedule.finish(Outcome(cell_id("b"), "done")) == [Outcome(cell_id("b"), "done")]
    assert schedule.next() is None
    assert schedule.finished


def test_what_is_committed_is_never_run(tmp_path: Path) -> None:
    (tmp_path / "cells").mkdir()
    Store(tmp_path).commit(cell_id("a"), Record(), {})
    schedule = schedule_of({"a": [], "b": ["a"], "c": ["b"]}, tmp_path)
    assert schedule.outcomes == {cell_id("a").key: Outcome(cell_id("a"), "cached")}
    assert list(drained(schedule)) == ["b", "c"]


def test_an_input_that_is_missing_is_made_though_its_user_is_there(tmp_path: Path) -> None:
    (tmp_path / "cells").mkdir()
    Store(tmp_path).commit(cell_id("b"), Record(), {})
    assert list(drained(schedule_of({"a": [], "b": ["a"], "c": ["b"]}, tmp_path))) == ["a", "c"]


@pytest.mark.parametrize("seed", range(20))
def test_any_order_of_ends_runs_every_cell_once_after_its_inputs(seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed)
    names = [f"{index:02}" for index in range(25)]
    needs: Needs = {name: draw.sample(names[:i], min(i, draw.randrange(4))) for i, name in enumerate(names)}
    schedule = schedule_of(needs, tmp_path)
    running: list[Cell] = []
    ended: list[str] = []
    while not schedule.finished:
        while len(running) < 3 and (cell := schedule.next()) is not None:
            assert set(needs[cell.title]) <= set(ended)
            running.append(cell)
        cell = running.pop(draw.randrange(len(running)))
        if draw.random() < 0.2:
            schedule.again(cell)
            continue
        ended.append(cell.title)
        schedule.finish(Outcome(cell.id, "done"))
    assert sorted(ended) == names


def test_what_somebody_else_computes_comes_last(tmp_path: Path) -> None:
    needs: Needs = {"a": [], "b": [], "c": [], "c1": ["c"]}
    schedule, store = schedule_of(needs, tmp_path), Store(tmp_path)
    with claimed(store.claim_path(cell_id("c")), lambda: False), claimed(store.claim_path(cell_id("a")), lambda: False):
        assert [schedule.next(), schedule.next()] == [schedule.cells[cell_id(name).key] for name in "bc"]
    assert schedule.next() == schedule.cells[cell_id("a").key]
    assert schedule.next() is None


def test_a_claim_that_was_let_go_does_not_hold_a_cell_back(tmp_path: Path) -> None:
    schedule, store = schedule_of({"a": [], "b": []}, tmp_path), Store(tmp_path)
    with claimed(store.claim_path(cell_id("a")), lambda: False):
        pass
    assert list(drained(schedule)) == ["a", "b"]


def test_the_claim_of_a_dead_process_does_not_hold_a_cell_back(tmp_path: Path) -> None:
    schedule, store = schedule_of({"a": [], "b": []}, tmp_path), Store(tmp_path)
    path = store.claim_path(cell_id("a"))
    code = (
        "import os, pathlib, sys; from suite.claim import claimed\n"
        "with claimed(pathlib.Path(sys.argv[1]), lambda: False): os._exit(1)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == 1
    assert path.with_name(f"{path.name}-0").exists()
    assert list(drained(schedule)) == ["a", "b"]
