from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data import read_dataset
from suite.cells import row_norms
from suite.cells._context import Context
from suite.cells.row_norms import Config, tables
from suite.curvature.rows import RowNorms, SampledRows
from suite.networks.sources import StoredNetwork
from suite.plan import Cell


@pytest.fixture
def cell(committed: Any) -> Any:
    (found,) = committed.cells("row_norms")
    return found


def test_the_norms_are_those_of_the_dense_rows(committed: Any, cell: Cell, tiny_data: Path) -> None:
    record, sha256 = committed.record(cell), read_dataset(tiny_data).sha256
    model = Config.model_validate(cell.config, strict=False).model
    source = StoredNetwork(model, cell.inputs["dense"], committed.store.folder, tiny_data, sha256, "cpu", "float64")
    network = source.load()
    operator = network.hessian("float64")
    matrix = operator.matmat(torch.eye(operator.dim, dtype=torch.float64)).numpy()
    rows = record.arrays["row_index"]
    assert len(np.unique(rows)) == len(rows) == 72
    expected = np.abs(matrix).sum(axis=1)[rows]
    assert record.arrays["row_l1_norm"] == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert record.arrays["row_diagonal"] == pytest.approx(np.diag(matrix)[rows], rel=1e-4, abs=1e-6)
    assert record.arrays["row_magnitude"] == pytest.approx(np.sort(np.abs(network.weights())))
    assert record.metrics["l1_norm_max"].value == record.arrays["row_l1_norm"].max()


def test_the_row_of_the_report(committed: Any, cell: Cell) -> None:
    record = committed.record(cell)
    (row,) = tables(Config.model_validate(cell.config, strict=False), record)["row_norms"]
    assert row == {"num_rows": 72, "num_zero_rows": int((record.arrays["row_l1_norm"] == 0).sum())}


def test_a_product_that_is_not_finite_is_a_status(
    committed: Any, cell: Cell, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    norms = RowNorms(np.arange(3), np.array([0.0, 2.0, np.nan]), np.array([0.0, 1.0, np.nan]), 3)

    def broken(*_: Any, **__: Any) -> SampledRows:
        return SampledRows(np.array([0.1, 0.2, 0.3]), norms)

    monkeypatch.setattr(row_norms, "sample_row_norms", broken)
    inputs = {"dense": (cell.inputs["dense"], committed.store.path(cell.inputs["dense"]))}
    context = Context({"data": tiny_data}, inputs)
    record = row_norms.run(Config.model_validate(cell.config, strict=False), {}, context)
    assert record.status == "nonfinite"
    assert {name: metric.value for name, metric in record.metrics.items()} == {"num_zero_rows": 1}
