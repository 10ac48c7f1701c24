from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from suite.attempt import attempt
from suite.cells.faithful_limit import Config, tables
from suite.cells.spectrum import stored_measure
from suite.limits.faithful import faithful_limit, gridded_density
from suite.limits.removal import MagnitudeOrder
from suite.plan import Cell
from suite.planner import make_plan
from suite.store import Store
from suite.study import read_study

CONVOLUTION = """
from torch import nn
def build(hidden):
    return nn.Sequential(nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
"""


@pytest.fixture
def cell(committed: Any) -> Any:
    (found,) = committed.cells("faithful_limit")
    return found


def test_the_limits_are_read_off_the_stored_probe(committed: Any, cell: Cell) -> None:
    record = committed.record(cell)
    weights = [committed.store.load(cell.inputs["dense"]).arrays[f"weights/{name}.weight"] for name in ("1", "3")]
    order = MagnitudeOrder.of(np.concatenate([weight.ravel() for weight in weights]))
    (rule,) = stored_measure(record.arrays).quadratures
    lengths = sum(float(np.linalg.norm(weight.astype(np.float64))) for weight in weights)
    for factor in ("0.5", "1", "2"):
        tolerance = float(factor) * record.metrics["loss_tolerance_nats"].value
        expected = faithful_limit(gridded_density(rule), order, tolerance, lengths)
        assert record.metrics[f"slq/gaussian_width_faithful/{factor}/sparsity_limit"].value == expected.sparsity_limit
    at_one = faithful_limit(gridded_density(rule), order, record.metrics["loss_tolerance_nats"].value, lengths)
    assert np.array_equal(record.curves["fraction"], at_one.fractions)
    assert record.curves["radius"].tolist() == list(range(len(at_one.fractions)))


def test_the_rows_of_the_report(committed: Any, cell: Cell) -> None:
    record = committed.record(cell)
    rows = tables(Config.model_validate(cell.config, strict=False), record)["limits"]
    assert [row["tolerance_factor"] for row in rows] == [0.5, 1.0, 2.0]
    assert {(row["limit"], row["source"], row["curvature"]) for row in rows} == {
        ("gaussian_width_faithful", "slq", "abs")
    }
    assert all(np.isnan(row["upper"]) and np.isnan(row["probe_standard_error"]) for row in rows)


def test_it_is_held_against_the_limit_cell_s_tolerance_and_network(committed: Any, cell: Cell) -> None:
    (limit,) = committed.cells("limit")
    name = "loss_tolerance_nats"
    assert committed.record(cell).metrics[name].value == committed.record(limit).metrics[name].value
    assert cell.inputs["dense"] == limit.inputs["dense"]


def test_a_given_tolerance_is_taken_from_limit(tiny_study: Path) -> None:
    overrides = ["analyses=['faithful_limit']", "options.limit.loss_tolerance_nats=0.25"]
    (cell,) = (c for c in make_plan(*read_study(str(tiny_study), overrides)).cells if c.id.kind == "faithful_limit")
    assert cell.config["loss_tolerance_nats"] == 0.25


def test_a_fully_connected_network_pays_for_one_probe_alone(committed: Any, cell: Cell) -> None:
    record = committed.record(cell)
    assert record.cost == {"matvecs": float(record.arrays["num_steps"].sum())}
    assert record.arrays["num_steps"].tolist()[0] <= 72
    assert record.metrics["num_flat_rows"].value == 0
    assert "row_index" not in record.arrays


def test_a_network_with_convolutions_pays_for_rows_too(
    tiny_study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "faithful_net.py").write_text(CONVOLUTION)
    monkeypatch.syspath_prepend(tmp_path)
    overrides = ["model='faithful_net:build'", "methods=['dense']", "analyses=['faithful_limit']"]
    plan = make_plan(*read_study(str(tiny_study), [*overrides, "options={}"]))
    store = Store(tmp_path / "folder")
    store.prepare()
    with torch.random.fork_rng(devices=[]):  # a user's constructor draws from the global generator
        for cell in plan.cells:
            assert attempt(cell, store.folder).status == "done"
    (cell,) = (cell for cell in plan.cells if cell.id.kind == "faithful_limit")
    record = store.load(cell.id)
    assert len(record.arrays["row_index"]) == len(set(record.arrays["row_index"])) == 60
    assert record.cost["matvecs"] == record.arrays["num_steps"][0] + 60
    norms, diagonal = record.arrays["row_l1_norm"], record.arrays["row_diagonal"]
    assert (norms >= np.abs(diagonal)).all()
    assert record.metrics["num_flat_rows"].value == np.count_nonzero(norms / 128 < 1e-7)
