from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from suite.cells import sweep
from suite.cells._context import Context
from suite.cells.sweep import Config, tables
from suite.estimate.work import Sizes
from suite.measure.sweep import magnitude_sweep
from suite.plan import Cell


@pytest.fixture
def cell(committed: Any) -> Any:
    (found,) = committed.cells("sweep")
    return found


def config_of(cell: Cell) -> Config:
    return Config.model_validate(cell.config, strict=False)


def test_every_point_has_a_value_and_says_whether_it_was_evaluated(committed: Any, cell: Cell) -> None:
    curves = committed.record(cell).curves
    assert curves["sparsity"].tolist() == [point / 1000 for point in range(1000)]
    assert curves["num_kept"].tolist() == [72 - -(-point * 72 // 1000) for point in range(1000)]
    assert curves["evaluated"].dtype == bool
    for split in ("train", "validation", "test"):
        assert np.isfinite(curves[f"{split}_loss"]).all()
        assert (curves[f"{split}_accuracy"] >= 0).all()
    num_counts = len(np.unique(curves["num_kept"][curves["evaluated"]]))  # several points have one count
    assert committed.record(cell).cost == {"evaluations": num_counts}
    assert num_counts <= 73


@pytest.fixture
def context(committed: Any, cell: Cell, tiny_data: Path) -> Context:
    return Context({"data": tiny_data}, {"dense": (cell.inputs["dense"], committed.store.path(cell.inputs["dense"]))})


def test_it_agrees_with_what_lomp_found_at_the_same_counts(committed: Any, cell: Cell, context: Context) -> None:
    whole = {"accuracy_tolerance": 1e-9, "loss_tolerance": 1e-9, "max_evaluations": 73}
    curves = sweep.run(config_of(cell).model_copy(update=whole), {}, context).curves
    again = committed.record(cell).curves
    for name, values in again.items():
        assert values[again["evaluated"]].tolist() == curves[name][again["evaluated"]].tolist()
    pruned = [each for each in committed.cells("prune", method="lomp") if not each.config["options"]["fine_tune"]]
    assert len(pruned) == 2
    for each in pruned:
        metrics = committed.record(each).metrics
        (points,) = np.nonzero(curves["num_kept"] == each.config["num_keep"])
        assert len(points)
        for name in ("test_accuracy", "validation_accuracy", "train_loss"):
            assert curves[name][points].tolist() == [metrics[name].value] * len(points)


def test_the_first_point_is_the_dense_network(committed: Any, cell: Cell) -> None:
    (dense,) = [each for each in committed.cells("dense") if each.id == cell.inputs["dense"]]
    curves, metrics = committed.record(cell).curves, committed.record(dense).metrics
    assert curves["test_accuracy"][0] == metrics["test_accuracy"].value


def test_the_row_of_the_report(committed: Any, cell: Cell) -> None:
    rows = tables(config_of(cell), committed.record(cell))
    num_evaluated = committed.record(cell).curves["evaluated"].sum()
    assert rows == {"sweeps": [{"num_sparsities": 1000, "num_evaluated": num_evaluated}]}


def test_a_loss_that_is_not_finite_is_a_status(cell: Cell, context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any, **named: Any) -> Any:
        found = magnitude_sweep(*arguments, **named)
        return replace(found, values=found.values | {"train_loss": np.full(1000, np.nan)})

    monkeypatch.setattr(sweep, "magnitude_sweep", broken)
    record = sweep.run(config_of(cell), {}, context)
    assert record.status == "nonfinite"
    assert record.metrics == {}
    assert record.curves["evaluated"].shape == (1000,)


def test_the_least_of_its_work_is_the_coarse_grid(cell: Cell, context: Context) -> None:
    sizes = Sizes(160, 40, 50, 72, 2, 83, 4, 32)
    config = config_of(cell).model_copy(update={"max_evaluations": 60})
    assert sweep.work(config, sizes).evaluated == (21 * 250, 60 * 250, 60 * 250)
    loose = config.model_copy(update={"accuracy_tolerance": 1e9, "loss_tolerance": 1e9})
    assert sweep.run(loose, {}, context).cost == {"evaluations": 21}
    assert sweep.work(config.model_copy(update={"max_evaluations": 9}), sizes).evaluated.low == 9 * 250
