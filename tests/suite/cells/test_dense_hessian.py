from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional

from data import read_dataset
from suite.cells.dense_hessian import Config, tables
from suite.datasets import training_splits
from suite.network import build_model
from suite.plan import Cell


@pytest.fixture
def cell(committed: Any) -> Any:
    (found,) = committed.cells("dense_hessian")
    return found


def hessian(committed: Any, cell: Cell, data: Path) -> Tensor:
    """Compute the matrix another way: autograd of the whole loss in double precision."""
    model = build_model(Config.model_validate(cell.config, strict=False).model)
    state = committed.store.load(cell.inputs["dense"]).arrays_under("weights")
    fixed = {name: torch.from_numpy(array).double() for name, array in state.items()}
    inputs, targets, _ = training_splits(data, read_dataset(data).sha256, "cpu")["train"]

    def loss(vector: Tensor) -> Tensor:
        weights = {"1.weight": vector[:48].view(8, 6), "3.weight": vector[48:].view(3, 8)}
        return functional.cross_entropy(functional_call(model, fixed | weights, (inputs.double(),)), targets)

    point = torch.cat([fixed[name].flatten() for name in ("1.weight", "3.weight")])
    matrix: Tensor = torch.autograd.functional.hessian(loss, point)  # type: ignore[no-untyped-call]
    return matrix


def test_all_eigenvalues_are_exact(committed: Any, cell: Cell, tiny_data: Path) -> None:
    expected = torch.linalg.eigvalsh(hessian(committed, cell, tiny_data)).numpy()
    found = np.sort(committed.record(cell).arrays["eigenvalues"])
    assert np.allclose(found, expected, rtol=1e-9, atol=1e-11 * expected[-1])


def test_one_product_per_row_that_is_not_zero_is_paid_and_one_to_find_them(committed: Any, cell: Cell) -> None:
    record = committed.record(cell)
    assert record.cost == {"matvecs": 1 + 72 - record.metrics["num_zero_rows"].value}


def test_its_tolerance_is_that_of_the_limit_cell(committed: Any, cell: Cell) -> None:
    (limit,) = committed.cells("limit")
    name = "loss_tolerance_nats"
    assert committed.record(cell).metrics[name].value == pytest.approx(committed.record(limit).metrics[name].value)


def test_all_limits_grow_with_the_tolerance(committed: Any, cell: Cell) -> None:
    record = committed.record(cell)
    rows = tables(Config.model_validate(cell.config, strict=False), record)["limits"]
    assert len(rows) == 9
    for limit in ("gaussian_width", "statistical_dimension", "masked_quadratic"):
        found = {row["tolerance_factor"]: row["sparsity_limit"] for row in rows if row["limit"] == limit}
        assert 0 < found[0.5] <= found[1.0] <= found[2.0] <= 1
    assert {row["source"] for row in rows} == {"dense_hessian"}
    assert {row["curvature"] for row in rows if row["limit"] == "masked_quadratic"} == {"positive"}
    assert tables(Config.model_validate(cell.config, strict=False), record)["spectra"] == [{"source": "dense_hessian"}]
