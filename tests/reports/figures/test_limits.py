import dataclasses

import numpy as np
import pytest

from reports._results import Results
from reports.figures import limits


def drawn(results):
    rows = limits.chart(results, "mlp-digits").to_dict()["datasets"].values()
    return [row for dataset in rows for row in dataset]


def test_the_curves_rise_from_the_loss_of_the_dense_network(results_file):
    results = Results.read(results_file(seeds=(0,)))
    cell = results.cell(results.limits.query("source == 'measured'")["cell"].iloc[0])
    curve = [row for row in drawn(results) if row.get("curve") == "Measured: One-shot"]
    expected = cell.curves["one_shot_train_loss"] - cell.curves["one_shot_train_loss"][0]
    assert [row["loss_rise_nats"] for row in curve] == pytest.approx(expected.tolist())
    assert {row["cell"] for row in curve} == {cell.name}


def test_predicted_limits_are_means_over_seeds_at_the_tolerance_itself(results_file):
    results = Results.read(results_file())
    rules = [row for row in drawn(results) if str(row.get("curve", "")).startswith("Predicted")]
    unique = {(row["curve"], row["source"]): row for row in rules}
    assert len(unique) == 4
    rows = results.limits.query("limit == 'gaussian_width' and source == 'slq' and tolerance_factor == 1.0")
    rule = unique["Predicted: Gaussian width", "SLQ"]
    assert rule["sparsity"] == pytest.approx(rows["sparsity_limit"].mean())
    assert rule["kept_most"] == pytest.approx(1 - rows["lower"].min())
    assert rule["kept_least"] == pytest.approx(1 - rows["upper"].max())


def test_the_tolerance_is_written_beside_its_line(results_file):
    results = Results.read(results_file(seeds=(0,)))
    tolerance = results.limits.query("tolerance_factor == 1.0")["loss_tolerance_nats"].iloc[0]
    line = next(row for row in drawn(results) if str(row.get("note", "")).startswith("loss tolerance"))
    assert line["loss_rise_nats"] == pytest.approx(tolerance)
    assert line["note"] == f"loss tolerance {tolerance:.3g} nats"


def test_curves_without_predictions_are_drawn(results_file):
    results = Results.read(results_file(seeds=(0,)))
    results = dataclasses.replace(results, limits=results.limits.query("source == 'measured'"))
    assert not any(str(row.get("curve", "")).startswith("Predicted") for row in drawn(results))


def test_predictions_without_a_curve_are_left_to_the_table(results_file):
    results = Results.read(results_file(seeds=(0,)))
    results = dataclasses.replace(results, limits=results.limits.query("source != 'measured'"))
    assert limits.chart(results, "mlp-digits") is None


def test_a_loss_that_is_not_finite_is_left_out(results_file):
    results = Results.read(results_file(seeds=(0,)))
    name = results.limits.query("source == 'measured'")["cell"].iloc[0]
    curves = dict(results.cell(name).curves)
    curves["one_shot_train_loss"] = np.where(curves["one_shot_sparsity"] > 0.98, np.nan, curves["one_shot_train_loss"])
    cells = {**results.cells, name: dataclasses.replace(results.cell(name), curves=curves)}
    curve = [
        row for row in drawn(dataclasses.replace(results, cells=cells)) if row.get("curve") == "Measured: One-shot"
    ]
    assert max(row["sparsity"] for row in curve) <= 0.98


def test_a_bound_of_one_is_drawn_to_the_end_of_the_axis(results_file):
    results = Results.read(results_file(seeds=(0,)))
    results = dataclasses.replace(results, limits=results.limits.assign(upper=1.0))
    bands = [row for row in drawn(results) if row.get("source") == "SLQ" and "kept_least" in row]
    assert any(row["kept_least"] == 1e-3 for row in bands)


def test_the_errors_of_searched_limits_are_a_band_around_all_seeds(results_file):
    results = Results.read(results_file(searched=True))
    rows = results.limits.query("limit == 'gaussian_width' and source == 'slq' and tolerance_factor == 1.0")
    band = next(row for row in drawn(results) if row.get("curve") == "Predicted: Gaussian width")
    assert band["kept_most_error"] == pytest.approx(1 - (rows["sparsity_limit"].min() - 0.004))
    assert band["kept_least_error"] == pytest.approx(1 - (rows["sparsity_limit"].max() + 0.004))
    assert layers_over(results, "kept_most_error") == 1
    assert layers_over(Results.read(results_file()), "kept_most_error") == 0


def layers_over(results, field):
    return str(limits.chart(results, "mlp-digits").to_dict()).count(f"'field': '{field}'")


def titles(results):
    return str(limits.chart(results, "mlp-digits").to_dict()["title"])


def test_limits_that_are_not_reached_stand_below_the_title(results_file):
    results = Results.read(results_file(seeds=(0, 1)))
    assert "reached" not in titles(results)
    is_one_shot = results.limits["limit"] == "one_shot"
    beyond = (results.limits["limit"] == "statistical_dimension") & (results.limits["seed"] == 1)
    new = results.limits["sparsity_limit"].mask(is_one_shot, 0.998).mask(beyond, 1.0)
    shown = titles(dataclasses.replace(results, limits=results.limits.assign(sparsity_limit=new)))
    assert "Measured: One-shot beyond 99.80%, the largest sparsity evaluated" in shown
    assert "Predicted, SLQ: Statistical dimension not reached with 1 of 2 seeds" in shown
    assert "Predicted, Dense Hessian: Statistical dimension not reached with 1 of 2 seeds" in shown
    assert "Fine-tuned" not in shown
