import dataclasses
import math

import pytest

from reports._results import Results
from reports.figures import accuracy


def datasets(results):
    return list(accuracy.chart(results, "mlp-digits").to_dict()["datasets"].values())


def points(results):
    return max(datasets(results), key=len)


def test_means_and_intermediate_rounds_are_drawn(results_file):
    results = Results.read(results_file())
    drawn = points(results)
    assert sum(row["requested"] for row in drawn) == 6 * 5
    assert sum(not row["requested"] for row in drawn) == 20
    assert {row["method"] for row in drawn if not row["requested"]} == {"imp"}
    rows = results.rows.query("method == 'lomp' and sparsity == 0.95")
    point = next(row for row in drawn if row["method"] == "lomp" and row["sparsity"] == 0.95)
    assert point["accuracy"] == pytest.approx(rows["test_accuracy"].mean())
    assert point["seeds"] == 3
    assert point["num_kept"] == "323"
    assert point["cells"].split(", ") == rows.sort_values("seed")["cell"].tolist()


def test_guessing_is_known_from_the_number_of_classes_of_the_cells(results_file):
    assert accuracy.chance_accuracy(Results.read(results_file(num_classes=200, seeds=(0,)))) == 1 / 200
    assert math.isnan(accuracy.chance_accuracy(Results.read(results_file(num_classes=None, seeds=(0,)))))


def test_one_dense_reference_is_one_line_and_several_are_one_per_method(results_file):
    results = Results.read(results_file(num_classes=None))
    notes = [row for rows in datasets(results) for row in rows if row.get("note") == "dense"]
    assert len(notes) == 1
    own = results.rows["dense_test_accuracy"] - 0.01 * (results.rows["method"] == "imp")
    results = dataclasses.replace(results, rows=results.rows.assign(dense_test_accuracy=own))
    references = [row for rows in datasets(results) for row in rows if row.get("note") == "dense"]
    assert len({row["label"] for row in references}) == 6
    assert len({row["error"] for row in references}) == 2


def test_only_dense_networks_are_nothing_to_draw(results_file):
    results = Results.read(results_file(methods=("dense",), analyses=False))
    assert accuracy.chart(results, "mlp-digits") is None
