"""Cells that are stopped after every single step of training commit the records of cells that run through."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from suite.attempt import attempt
from suite.plan import Cell
from suite.record import Record
from suite.store import Store
from suite.training.checkpoint import Interrupted, Notice


def science(record: Record) -> dict[str, Any]:
    both = record.arrays | record.curves
    arrays = {name: (str(each.dtype), each.shape, each.tobytes()) for name, each in both.items()}
    return arrays | {"status": record.status, "metrics": repr(sorted(record.metrics.items())), "cost": record.cost}


def find(committed: Any, kind: str, **config: Any) -> Cell:
    return max(committed.cells(kind, **config), key=lambda cell: committed.record(cell).cost["gradient_steps"])


CASES = {
    "dense": ("dense", {"stop_step": None}, 15),
    "rewind": ("dense", {"stop_step": 3}, 3),
    "imp": ("prune", {"method": "imp", "num_keep": 25}, 12),
    "fine-tuning": ("prune", {"method": "lomp", "num_keep": 36}, 15),
    "rare gems": ("prune", {"method": "rare_gems", "num_keep": 36}, 30),  # 15 of the search, 15 of the training
}


@pytest.mark.parametrize("case", CASES)
def test_a_cell_that_is_stopped_after_each_step(committed: Any, tmp_path: Path, case: str) -> None:
    kind, config, num_steps = CASES[case]
    cell, store = find(committed, kind, **config), Store(tmp_path)
    store.prepare()
    for each in cell.inputs.values():
        shutil.copy(committed.store.path(each), store.path(each))
    stopped: list[str] = []
    outcome = None
    while outcome is None:
        try:
            outcome = attempt(cell, tmp_path, notice=Notice(stop=True))
        except Interrupted as told:
            stopped.append(str(told))
            assert not store.path(cell.id).exists()
            assert not list((tmp_path / "cells").glob("*.claim-*"))
            assert store.checkpoint_path(cell.id).is_dir()
    assert outcome.status == "done"
    assert len(stopped) == len(set(stopped)) == num_steps  # no step was done twice, and none was left out
    assert science(store.load(cell.id)) == science(committed.record(cell))
    assert not store.checkpoint_path(cell.id).exists()


def test_a_cell_that_runs_through_saves_nothing(
    committed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell, store = find(committed, "dense", stop_step=None), Store(tmp_path)
    store.prepare()
    monkeypatch.setattr("suite.training.checkpoint.Stage._write", lambda *_: pytest.fail("a short cell was saved"))
    assert attempt(cell, tmp_path).status == "done"


def test_the_state_of_another_cell_is_not_gone_on_from(
    committed: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole, rewind = find(committed, "dense", stop_step=None), find(committed, "dense", stop_step=3)
    store = Store(tmp_path)
    store.prepare()
    with pytest.raises(Interrupted):
        attempt(rewind, tmp_path, notice=Notice(stop=True))
    store.checkpoint_path(rewind.id).rename(store.checkpoint_path(whole.id))
    assert attempt(whole, tmp_path).status == "done"
    assert len(caplog.messages) == 1
    assert rewind.id.key in caplog.messages[0]
    assert science(store.load(whole.id)) == science(committed.record(whole))
