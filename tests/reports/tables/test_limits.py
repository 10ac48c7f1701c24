import dataclasses

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from reports._results import Results
from reports.tables import limits
from reports.tables._column import printed


@pytest.fixture
def results(results_file):
    return Results.read(results_file())


def value(results, limit, source, seed, factor=1.0):
    rows = results.limits
    match = (rows["limit"] == limit) & (rows["source"] == source) & (rows["seed"] == seed)
    return rows[match & (rows["tolerance_factor"] == factor)]["sparsity_limit"].item()


def test_one_row_per_predictor_tolerance_and_seed_and_one_mean(results):
    frame = limits.build(results)
    assert len(frame) == 2 * 3 * (3 + 1)
    assert frame["statistic"].value_counts().to_dict() == {"seed": 18, "mean": 6}


def test_a_row_holds_prediction_beside_measurement_of_the_same_network(results):
    frame = limits.build(results)
    match = (frame["predictor"] == "statistical_dimension") & (frame["seed"] == 1) & (frame["tolerance_factor"] == 2.0)
    row = frame[match].iloc[0]
    slq = value(results, "statistical_dimension", "slq", 1, 2.0)
    dense = value(results, "statistical_dimension", "dense_hessian", 1, 2.0)
    one_shot = value(results, "one_shot", "measured", 1, 2.0)
    fine_tuned = value(results, "fine_tuned", "measured", 1, 2.0)
    assert (row["estimated"], row["dense_hessian"], row["one_shot"], row["fine_tuned"]) == (
        slq,
        dense,
        one_shot,
        fine_tuned,
    )
    assert row["estimated_minus_dense"] == slq - dense
    assert row["estimated_minus_one_shot"] == slq - one_shot
    assert row["estimated_minus_fine_tuned"] == slq - fine_tuned


def test_the_mean_of_differences_is_taken_seed_by_seed(results):
    frame = limits.build(results)
    match = (frame["predictor"] == "gaussian_width") & (frame["statistic"] == "mean")
    row = frame[match & (frame["tolerance_factor"] == 1.0)].iloc[0]
    slq = np.array([value(results, "gaussian_width", "slq", seed) for seed in range(3)])
    dense = np.array([value(results, "gaussian_width", "dense_hessian", seed) for seed in range(3)])
    differences = slq - dense
    assert row["estimated_minus_dense"] == pytest.approx(differences.mean(), abs=1e-15)
    expected = stats.t.ppf(0.975, 2) * stats.sem(differences)
    assert row["estimated_minus_dense_half_width"] == pytest.approx(expected, rel=1e-9)
    assert (row["num_seeds"], pd.isna(row["seed"])) == (3, True)


def test_one_seed_has_no_mean_row(results_file):
    frame = limits.build(Results.read(results_file(seeds=(5,))))
    assert set(frame["statistic"]) == {"seed"}
    assert set(frame["seed"]) == {5}


@pytest.mark.parametrize("source", ["slq", "dense_hessian"])
def test_one_source_alone_leaves_the_other_and_the_difference_open(results, source):
    kept = results.limits["source"].isin([source, "measured"])
    frame = limits.build(dataclasses.replace(results, limits=results.limits[kept]))
    shown, other = ("estimated", "dense_hessian") if source == "slq" else ("dense_hessian", "estimated")
    assert frame[shown].notna().all()
    assert frame[[other, "estimated_minus_dense"]].isna().all(axis=None)
    assert "–" in printed(frame, limits.COLUMNS)[0]


def test_measured_limits_alone_are_shown_without_a_predictor(results):
    measured = results.limits[results.limits["source"] == "measured"]
    frame = limits.build(dataclasses.replace(results, limits=measured))
    assert set(frame["predictor"]) == {""}
    assert frame["one_shot"].notna().all()
    assert len(frame) == 3 * (3 + 1)


def test_limits_by_accuracy_stand_in_every_row_of_their_seed(results):
    by_accuracy = results.limits[results.limits["limit"] == "one_shot"].drop_duplicates("seed")
    by_accuracy = by_accuracy.assign(limit="one_shot_accuracy", tolerance_factor=np.nan, loss_tolerance_nats=np.nan)
    by_accuracy["sparsity_limit"] = 0.5 + 0.1 * by_accuracy["seed"]
    both = pd.concat([results.limits, by_accuracy], ignore_index=True)
    frame = limits.build(dataclasses.replace(results, limits=both))
    seeds = frame[frame["statistic"] == "seed"]
    assert len(frame) == 2 * 3 * (3 + 1)
    assert np.allclose(seeds["one_shot_accuracy"], 0.5 + 0.1 * seeds["seed"].astype(float))


def test_two_treatments_of_negative_curvature_are_never_mixed(results):
    other = results.limits[results.limits["source"] != "measured"].assign(curvature="abs")
    both = pd.concat([results.limits, other], ignore_index=True)
    frame = limits.build(dataclasses.replace(results, limits=both))
    assert frame["curvature"].value_counts().to_dict() == {"abs": 24, "positive": 24}


def test_limits_by_accuracy_alone_are_shown(results):
    alone = results.limits[results.limits["limit"] == "one_shot"].drop_duplicates("seed")
    alone = alone.assign(limit="one_shot_accuracy", tolerance_factor=np.nan, loss_tolerance_nats=np.nan)
    frame = limits.build(dataclasses.replace(results, limits=alone))
    assert frame["one_shot_accuracy"].notna().all()
    assert len(frame) == 3 + 1


def test_the_error_of_a_searched_limit_stands_beside_it(results_file):
    frame = limits.build(Results.read(results_file(searched=True)))
    heading = [column.heading for column in limits.COLUMNS].index("Error (points)")
    shown = {
        (row.statistic, row.tolerance_factor): text[heading]
        for row, text in zip(frame.itertuples(), printed(frame, limits.COLUMNS), strict=True)
    }
    assert shown == {
        (kind, factor): "0.40" if (kind, factor) == ("seed", 1.0) else "–"
        for kind in ("seed", "mean")
        for factor in (0.5, 1.0, 2.0)
    }
    assert limits.build(Results.read(results_file()))["error"].isna().all()


def with_limit(results, limit, source, by_seed):
    match = (results.limits["limit"] == limit) & (results.limits["source"] == source)
    new = results.limits["sparsity_limit"].mask(match, results.limits["seed"].map(dict(enumerate(by_seed))))
    return dataclasses.replace(results, limits=results.limits.assign(sparsity_limit=new))


def column_texts(results, heading):
    """Return the texts of a column in the rows of the first predictor at the tolerance itself: seeds, then mean."""
    frame = limits.build(results)
    index = [column.heading for column in limits.COLUMNS].index(heading)
    texts = [row[index] for row in printed(frame, limits.COLUMNS)]
    chosen = (frame["predictor"] == "gaussian_width") & (frame["tolerance_factor"] == 1.0)
    return [text for text, is_chosen in zip(texts, chosen, strict=True) if is_chosen]


def test_an_interval_of_limits_is_cut_at_the_end_of_the_scale(results_file):
    results = with_limit(Results.read(results_file(seeds=(0, 1))), "one_shot", "measured", (0.9, 0.98))
    assert column_texts(results, "One-shot, measured (%)") == ["90.00", "98.00", "94.00 [43.18, 100.00]"]
    assert "cut at 0 or 100" in limits.CAPTION


def test_a_limit_that_is_not_reached_has_no_number_and_no_difference(results_file):
    results = with_limit(Results.read(results_file(seeds=(0, 1))), "one_shot", "measured", (1.0, 1.0))
    assert column_texts(results, "One-shot, measured (%)") == ["not reached"] * 3
    assert column_texts(results, "Estimated − one-shot") == ["–"] * 3
    frame = limits.build(results)
    assert frame["one_shot_half_width"].isna().all()
    assert set(frame["one_shot_not_reached"]) == {1, 2}


def test_a_mean_over_seeds_of_which_one_did_not_reach_its_limit_has_no_interval(results_file):
    results = with_limit(Results.read(results_file(seeds=(0, 1))), "one_shot", "measured", (0.9, 1.0))
    assert column_texts(results, "One-shot, measured (%)") == ["90.00", "not reached", "95.00 (1 of 2 not reached)"]
    shown = column_texts(results, "Estimated − one-shot")
    assert shown[0] == shown[2] != shown[1] == "–"


def test_a_limit_at_the_end_of_its_curve_lies_beyond_it(results_file):
    results = with_limit(Results.read(results_file(seeds=(0, 1))), "one_shot", "measured", (0.998, 0.998))
    assert column_texts(results, "One-shot, measured (%)") == ["beyond 99.80"] * 3


@pytest.mark.parametrize(("source", "heading"), [("slq", "Estimated (%)"), ("dense_hessian", "Dense Hessian (%)")])
def test_a_prediction_of_everything_is_not_reached(results_file, source, heading):
    results = with_limit(Results.read(results_file(seeds=(0, 1))), "gaussian_width", source, (1.0, 1.0))
    assert column_texts(results, heading) == ["not reached"] * 3
    assert column_texts(results, "Estimated − dense Hessian") == ["–"] * 3
