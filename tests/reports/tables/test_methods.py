"""The numbers of the accuracy table against hand computation, and its three files against a golden copy.

To accept a change of the golden files: ESPALIER_ACCEPT=1 pytest tests/reports/tables/test_methods.py, then read the
difference before committing it.
"""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from reports._results import Results
from reports.tables import methods
from reports.write import write_report

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def results(results_file):
    return Results.read(results_file())


def row(frame, method, sparsity):
    return frame[(frame["method"] == method) & (frame["sparsity"] == sparsity)].iloc[0]


def test_mean_and_interval_are_those_of_the_seeds(results):
    built = row(methods.build(results), "rare_gems", 0.98)
    values = results.rows.query("method == 'rare_gems' and sparsity == 0.98")["test_accuracy"].to_numpy()
    assert len(values) == built["num_seeds"] == 3
    assert built["test_accuracy"] == pytest.approx(values.mean(), rel=1e-12)
    half_width = stats.t.ppf(0.975, 2) * stats.sem(values)
    assert built["test_accuracy_half_width"] == pytest.approx(half_width, rel=1e-10)


def test_the_drop_is_taken_seed_by_seed(results):
    rows = results.rows
    # Dense networks differ by far more than pruned ones from their own: only pairs have a narrow interval.
    offset = rows["seed"].map({0: -0.2, 1: 0.0, 2: 0.1})
    rows = rows.assign(
        dense_test_accuracy=rows["dense_test_accuracy"] + offset,
        test_accuracy=rows["dense_test_accuracy"] + offset - 0.01,
    )
    built = row(methods.build(dataclasses.replace(results, rows=rows)), "imp", 0.9)
    assert built["drop"] == pytest.approx(0.01)
    assert built["drop_half_width"] == pytest.approx(0.0, abs=1e-12)
    assert built["test_accuracy_half_width"] > 0.3


def test_counts_are_exact_and_intermediate_rounds_stay_out(results):
    frame = methods.build(results)
    assert len(frame) == 1 + 6 * 5
    assert frame["num_kept"].dtype == np.int64
    assert {(s, k) for s, k in zip(frame["sparsity"], frame["num_kept"], strict=True)} == {
        (0.0, 6464),
        (0.8, 1293),
        (0.9, 646),
        (0.95, 323),
        (0.98, 129),
        (0.99, 65),
    }


def test_seeds_that_kept_another_count_are_another_row(results):
    rows = results.rows
    odd = (rows["method"] == "lomp") & (rows["sparsity"] == 0.9) & (rows["seed"] == 1)
    rows = rows.assign(num_kept=rows["num_kept"].mask(odd, 645))
    frame = methods.build(dataclasses.replace(results, rows=rows))
    found = frame[(frame["method"] == "lomp") & (frame["sparsity"] == 0.9)]
    assert list(zip(found["num_kept"], found["num_seeds"], strict=True)) == [(645, 1), (646, 2)]


def test_the_dense_network_has_no_drop_from_itself(results):
    assert np.isnan(row(methods.build(results), "dense", 0.0)["drop"])


def test_the_best_test_epoch_stands_only_in_a_column_that_says_so():
    headings = [column.heading for column in methods.COLUMNS if column.sort_by == "test_accuracy_oracle_best"]
    assert len(headings) == 1
    assert headings[0].startswith("Oracle")


@pytest.mark.parametrize("suffix", ["csv", "md", "tex"])
def test_the_files_are_those_of_the_golden_copy(suffix, results_file, tmp_path):
    path = results_file(methods=("dense", "lomp", "imp"), sparsities=(0.9, 0.95), analyses=False)
    write_report(path, tmp_path / "report", command="espalier report runs/quickstart")
    written = (tmp_path / "report" / "tables" / f"methods.{suffix}").read_text(encoding="utf-8")
    golden = GOLDEN / f"methods.{suffix}"
    if os.environ.get("ESPALIER_ACCEPT"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(written, encoding="utf-8")
    assert written == golden.read_text(encoding="utf-8"), f"To accept: ESPALIER_ACCEPT=1 pytest {__file__}"
