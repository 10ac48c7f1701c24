import dataclasses

import pandas as pd
import pytest

from reports._answer import answer
from reports._results import Results


def read_with(results_file, drops, seeds=(0,), **changes):
    """Return results whose drops are exactly those given, {method: {sparsity: drop}}."""
    sparsities = sorted({sparsity for by_sparsity in drops.values() for sparsity in by_sparsity})
    changes = {"analyses": False, "rounds": False} | changes
    results = Results.read(results_file(methods=tuple(drops), sparsities=sparsities, seeds=seeds, **changes))
    rows = results.rows.assign(dense_test_accuracy=0.9)
    rows["test_accuracy"] = [
        0.9 - drops[method][sparsity] for method, sparsity in zip(rows["method"], rows["sparsity"], strict=True)
    ]
    return dataclasses.replace(results, rows=rows)


def test_the_method_that_holds_to_the_highest_sparsity_is_named_then_the_next(results_file):
    drops = {"lomp": {0.8: 0.0, 0.9: 0.1, 0.95: 0.2}, "imp": {0.8: 0.0, 0.9: 0.004, 0.95: 0.02}}
    headline = answer(read_with(results_file, drops), "mlp-digits").headline
    assert headline == (
        "IMP keeps its accuracy longest: within 0.5 points of its own dense network up to 90% sparsity "
        "(mean drop 0.40 points, one seed). Next: LOMP, up to 80%."
    )


def test_a_recovery_beyond_a_collapse_does_not_count(results_file):
    drops = {"lomp": {0.8: 0.0, 0.9: 0.3, 0.95: 0.0}, "imp": {0.8: 0.0, 0.9: 0.0, 0.95: 0.3}}
    assert answer(read_with(results_file, drops), "mlp-digits").headline.startswith("IMP keeps its accuracy longest")


def test_methods_that_tie_are_all_named_and_none_keeps_it_longest(results_file):
    drops = {"lomp": {0.8: 0.0}, "imp": {0.8: 0.001}}
    headline = answer(read_with(results_file, drops), "mlp-digits").headline
    assert headline.startswith("LOMP and IMP keep their accuracy: within 0.5 points of their own dense networks")
    assert "80%, the highest sparsity tested (mean drop 0.00 and 0.10 points, one seed)" in headline
    assert "Next" not in headline


def test_a_single_method_is_not_called_the_longest(results_file):
    headline = answer(read_with(results_file, {"lomp": {0.8: 0.0, 0.9: 0.1}}), "mlp-digits").headline
    assert headline.startswith("LOMP keeps its accuracy: within")


def test_when_no_method_holds_the_closest_is_named(results_file):
    drops = {"lomp": {0.8: 0.1, 0.9: 0.2}, "imp": {0.8: 0.012, 0.9: 0.1}}
    headline = answer(read_with(results_file, drops), "mlp-digits").headline
    assert headline.startswith("No method stays within 0.5 points")
    assert headline.endswith("The closest is IMP (mean drop 1.20 points, one seed).")


def test_several_seeds_carry_their_interval(results_file):
    drops = {"lomp": {0.8: 0.001}}
    headline = answer(read_with(results_file, drops, seeds=(0, 1, 2)), "mlp-digits").headline
    assert "mean drop 0.10\u00a0±\u00a00.00 points, 3 seeds" in headline


def test_without_a_dense_reference_there_is_no_claim(results_file):
    results = read_with(results_file, {"lomp": {0.8: 0.0}})
    results = dataclasses.replace(results, rows=results.rows.assign(dense_test_accuracy=float("nan")))
    assert answer(results, "mlp-digits").headline == "No pruned network has a dense reference to be held against."


def test_without_pruned_networks_there_is_no_claim(results_file):
    results = Results.read(results_file(methods=("dense",), analyses=False))
    assert answer(results, "mlp-digits").headline == "No pruned network has a result yet."


def test_predicted_and_measured_limits_are_told_with_their_mean(results_file):
    results = Results.read(results_file(seeds=(0,)))
    limits = results.limits
    values = {"gaussian_width": 0.951, "statistical_dimension": 0.963, "one_shot": 0.94, "fine_tuned": 0.97}
    limits = limits.assign(sparsity_limit=limits["limit"].map(values))
    limits.loc[(limits["source"] == "slq") & (limits["limit"] == "gaussian_width"), "sparsity_limit"] = 0.953
    told = answer(dataclasses.replace(results, limits=limits), "mlp-digits").limits
    assert "95.30% (Gaussian width) and 96.30% (Statistical dimension). Measured: 94.00% (One-shot)" in told[0]
    assert told[1] == "Held against the dense Hessian, in points of sparsity: SLQ off by at most 0.20."


def test_each_kind_of_estimate_is_held_against_the_dense_hessian(results_file):
    results = Results.read(results_file(seeds=(0, 1)))
    limits = results.limits[results.limits["limit"].isin(["gaussian_width", "one_shot"])].assign(sparsity_limit=0.9)
    masks = limits[limits["source"] != "measured"].assign(limit="masked_quadratic", curvature="positive")
    masks["source"] = masks["source"].replace("slq", "conjugate_gradients")
    masks.loc[(masks["source"] == "conjugate_gradients") & (masks["seed"] == 1), "sparsity_limit"] = 0.915
    told = answer(dataclasses.replace(results, limits=pd.concat([limits, masks])), "mlp-digits").limits
    assert told[1].startswith("Held against the dense Hessian, in points of sparsity: ")
    assert "SLQ off by at most 0.00" in told[1]
    assert "Conjugate gradients off by at most 1.50" in told[1]


@pytest.mark.parametrize(("kept", "words"), [("measured", "Measured sparsity limit"), ("slq", "not in this study")])
def test_one_half_of_the_limits_is_told_alone(results_file, kept, words):
    results = Results.read(results_file(seeds=(0,)))
    results = dataclasses.replace(results, limits=results.limits[results.limits["source"] == kept])
    told = answer(results, "mlp-digits").limits
    assert words in told[0]
    assert len(told) == 1


def test_the_most_accurate_at_the_highest_sparsity_is_told_beside_who_dropped_least(results_file):
    drops = {"lomp": {0.8: 0.0, 0.9: 0.2}, "imp": {0.8: 0.1, 0.9: 0.1}}
    said = answer(read_with(results_file, drops), "mlp-digits")
    assert said.headline.startswith("LOMP keeps its accuracy longest")
    assert said.highest == (
        "Most accurate at 90%, the highest sparsity tested: IMP with 80.00%, then LOMP with 70.00% (one seed).",
    )


@pytest.mark.parametrize(("spread", "overlap"), [(0.2, True), (0.0, False)])
def test_intervals_that_overlap_are_said_to(results_file, spread, overlap):
    results = read_with(results_file, {"lomp": {0.9: 0.2}, "imp": {0.9: 0.1}}, seeds=(0, 1, 2))
    rows = results.rows.assign(test_accuracy=results.rows["test_accuracy"] + spread * (results.rows["seed"] - 1))
    (sentence,) = answer(dataclasses.replace(results, rows=rows), "mlp-digits").highest
    assert ("their intervals overlap" in sentence) == overlap


def test_one_method_is_not_compared_with_itself(results_file):
    assert answer(read_with(results_file, {"lomp": {0.9: 0.2}}), "mlp-digits").highest == ()


def test_limits_by_accuracy_are_told_apart_from_those_by_loss(results_file):
    results = Results.read(results_file(seeds=(0,)))
    by_accuracy = results.limits.query("limit == 'one_shot' and tolerance_factor == 1.0")
    by_accuracy = by_accuracy.assign(limit="one_shot_accuracy", sparsity_limit=0.875)
    both = pd.concat([results.limits, by_accuracy], ignore_index=True)
    told = answer(dataclasses.replace(results, limits=both), "mlp-digits").limits
    assert "87.50" not in told[0]
    assert told[1] == "Measured by accuracy in place of the loss: 87.50% (One-shot, accuracy)."


def test_missing_results_are_counted_and_named(results_file):
    results = Results.read(results_file(methods=("dense", "lomp", "imp"), analyses=False))
    lost = (results.rows["method"] == "lomp") & (results.rows["sparsity"] == 0.95) & (results.rows["seed"] == 2)
    results = dataclasses.replace(results, rows=results.rows[~lost])
    assert answer(results, "mlp-digits").missing == ("LOMP: 1 of 15 results are missing (95% seed 2).",)


def test_a_method_without_any_result_and_analyses_without_any_are_missing(results_file):
    results = Results.read(results_file(methods=("dense", "lomp", "imp"), seeds=(0,)))
    results = dataclasses.replace(
        results,
        rows=results.rows[results.rows["method"] != "imp"],
        limits=results.limits[:0],
        spectra=results.spectra[:0],
    )
    missing = answer(results, "mlp-digits").missing
    assert missing[0].startswith("IMP: 5 of 5 results are missing (80% seed 0, ")
    assert missing[1] == "The analyses that the study asks for have no result yet."


def test_a_complete_study_misses_nothing(results_file):
    assert answer(Results.read(results_file()), "mlp-digits").missing == ()
