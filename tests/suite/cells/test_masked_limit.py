from pathlib import Path
from typing import Any

import pytest
import torch

from data import read_dataset
from suite.cells.masked_limit import Config, tables
from suite.curvature.operators import MatrixOperator
from suite.limits.masked_loss import masked_quadratic_loss
from suite.limits.removal import MagnitudeOrder
from suite.networks.sources import StoredNetwork
from suite.plan import Cell


@pytest.fixture
def cell(committed: Any) -> Any:
    (found,) = committed.cells("masked_limit")
    return found


def config_of(cell: Cell) -> Config:
    return Config.model_validate(cell.config, strict=False)


def test_the_mask_at_the_limit_is_feasible_and_the_next_is_not(committed: Any, cell: Cell, tiny_data: Path) -> None:
    record, sha256 = committed.record(cell), read_dataset(tiny_data).sha256
    source = StoredNetwork(
        config_of(cell).model, cell.inputs["dense"], committed.store.folder, tiny_data, sha256, "cpu", "float64"
    )
    network, tolerance = source.load(), record.metrics["loss_tolerance_nats"].value
    operator = network.convexified("float64")
    matrix = operator.matmat(torch.eye(operator.dim, dtype=torch.float64))
    order = MagnitudeOrder.of(network.weights())
    for factor in (0.5, 1.0, 2.0):
        found = round(record.metrics[f"conjugate_gradients/masked_quadratic/{factor:g}/sparsity_limit"].value * 72)
        dense = MatrixOperator((matrix + matrix.T) / 2)
        losses = [masked_quadratic_loss(dense, order, found + more, max_matvecs=200).loss_nats for more in (0, 1)]
        assert losses[0] <= 1.02 * factor * tolerance
        assert losses[1] > 0.98 * factor * tolerance


def test_it_is_near_the_exact_limit_of_the_dense_hessian(committed: Any, cell: Cell) -> None:
    (dense,) = committed.cells("dense_hessian")
    for factor in ("0.5", "1", "2"):
        name = f"masked_quadratic/{factor}/sparsity_limit"
        exact = committed.record(dense).metrics[f"dense_hessian/{name}"].value
        assert committed.record(cell).metrics[f"conjugate_gradients/{name}"].value == pytest.approx(
            exact, abs=0.05
        )  # 3 of 72 weights


def test_it_has_the_tolerance_and_the_network_of_the_limit_cell(committed: Any, cell: Cell) -> None:
    (limit,) = committed.cells("limit")
    name = "loss_tolerance_nats"
    assert committed.record(cell).metrics[name].value == committed.record(limit).metrics[name].value
    assert {role: cell.inputs[role] for role in ("dense", "spectrum")} == limit.inputs


def test_the_rows_of_the_report(committed: Any, cell: Cell) -> None:
    rows = tables(config_of(cell), committed.record(cell))["limits"]
    assert [row["tolerance_factor"] for row in rows] == [0.5, 1.0, 2.0]
    assert {(row["limit"], row["source"], row["curvature"]) for row in rows} == {
        ("masked_quadratic", "conjugate_gradients", "positive")
    }
    assert all(row["lower"] <= row["sparsity_limit"] < row["upper"] for row in rows)


def test_the_cost_counts_products_and_solves_cut_short_are_counted(committed: Any, cell: Cell) -> None:
    record = committed.record(cell)
    assert record.cost["matvecs"] >= 3 * record.metrics["num_solves"].value + 2 * 33
    assert 0 <= record.metrics["num_solves_cut_short"].value <= record.metrics["num_solves"].value
