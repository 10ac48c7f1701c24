import dataclasses

import numpy as np
import pytest

from reports._results import Cell, Results
from reports.figures import row_norms


def drawn(results):
    return [row for rows in row_norms.chart(results, "mlp-digits").to_dict()["datasets"].values() for row in rows]


def with_arrays(results, **arrays):
    cells = {name: Cell(name, arrays=arrays) for name in results.row_norms["cell"]}
    return dataclasses.replace(results, cells=cells)


def test_every_row_is_a_mark_at_its_norm_and_percentile(results_file):
    results = Results.read(results_file(seeds=(0, 1)))
    for name in results.row_norms["cell"]:
        norms = results.cell(name).arrays["row_l1_norm"]
        mine = sorted((row for row in drawn(results) if row["cell"] == name), key=lambda row: row["percentile"])
        assert [row["l1_norm"] for row in mine] == pytest.approx(norms.tolist())
        assert [row["percentile"] for row in mine] == pytest.approx(np.arange(0.5, 100).tolist())


def test_zero_rows_lie_on_the_bottom_line(results_file):
    rows = drawn(Results.read(results_file(seeds=(0,))))
    zeros = [row for row in rows if row["l1_norm"] == 0.0]
    assert len(zeros) == 20
    assert all(row["is_zero"] for row in zeros)
    assert {row["shown"] for row in zeros} == {min(row["shown"] for row in rows)}


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"row_l1_norm": np.zeros(3), "row_magnitude": np.ones(3)},
        {"row_l1_norm": np.ones(3), "row_magnitude": np.ones(2)},
        {"row_l1_norm": np.full(3, np.nan), "row_magnitude": np.ones(3)},
    ],
)
def test_without_a_row_above_zero_there_is_nothing_to_draw(arrays, results_file):
    assert row_norms.chart(with_arrays(Results.read(results_file(seeds=(0,))), **arrays), "mlp-digits") is None
