import dataclasses

import pandas as pd
import pytest

from reports._answer import answer
from reports._results import Results


def with_limits(results, values):
    """Return results whose limits by loss at the tolerance itself are {(limit, source): one value per seed}."""
    rows = results.limits
    for (limit, source), by_seed in values.items():
        match = (rows["limit"] == limit) & (rows["source"] == source)
        new = rows["seed"].map(dict(enumerate(by_seed)))
        rows = rows.assign(sparsity_limit=rows["sparsity_limit"].mask(match, new))
    return dataclasses.replace(results, limits=rows)


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


def test_a_limit_that_no_seed_reaches_has_no_number(results_file):
    results = with_limits(Results.read(results_file(seeds=(0, 1))), {("fine_tuned", "measured"): (1.0, 1.0)})
    told = answer(results, "mlp-digits").limits
    assert "and not reached (Fine-tuned)." in told[0]
    assert "100.00" not in told[0]
    assert (
        told[-1] == "Not reached: the tolerance is kept even with no weight left, so that there is no limit to compare."
    )


def test_a_limit_that_some_seeds_reach_says_how_many_do_not_and_has_no_interval(results_file):
    results = with_limits(Results.read(results_file(seeds=(0, 1))), {("fine_tuned", "measured"): (0.9, 1.0)})
    told = answer(results, "mlp-digits").limits
    assert "and 95.00% (Fine-tuned; not reached with 1 of 2 seeds)." in told[0]


def test_a_limit_at_the_largest_sparsity_that_was_evaluated_lies_beyond_it(results_file):
    results = with_limits(Results.read(results_file(seeds=(0, 1))), {("fine_tuned", "measured"): (0.998, 0.998)})
    told = answer(results, "mlp-digits").limits
    assert "and beyond 99.80%, the largest sparsity evaluated (Fine-tuned)." in told[0]
    assert not any("not reached" in sentence for sentence in told)


def test_intervals_of_limits_stay_within_the_scale(results_file):
    results = with_limits(Results.read(results_file(seeds=(0, 1))), {("gaussian_width", "slq"): (0.9, 0.98)})
    assert "94.00\u00a0[43.18,\u00a0100.00]% (Gaussian width)" in answer(results, "mlp-digits").limits[0]


def test_an_interval_over_the_whole_scale_is_told_as_seeds_that_do_not_agree(results_file):
    results = with_limits(Results.read(results_file(seeds=(0, 1))), {("gaussian_width", "slq"): (0.1, 0.9)})
    assert "50.00% (Gaussian width; the 2 seeds do not agree)" in answer(results, "mlp-digits").limits[0]


def test_a_network_that_guesses_has_no_limit_to_tell(results_file):
    results = Results.read(results_file(seeds=(0, 1)))
    is_lomp = results.rows["method"] == "lomp"  # the network that is analysed
    rows = results.rows.assign(dense_test_accuracy=results.rows["dense_test_accuracy"].mask(is_lomp, 0.1))
    said = answer(dataclasses.replace(results, rows=rows), "mlp-digits")
    assert said.limits == ()
    assert "LOMP (10.00" in " ".join(said.notes)


def test_an_estimate_that_is_not_reached_is_still_held_against_an_oracle_that_is(results_file):
    values = {("gaussian_width", "slq"): (1.0,), ("gaussian_width", "dense_hessian"): (0.9,)}
    values |= {("statistical_dimension", source): (1.0,) for source in ("slq", "dense_hessian")}
    results = with_limits(Results.read(results_file(seeds=(0,))), values)
    told = answer(results, "mlp-digits").limits
    assert "Held against the dense Hessian, in points of sparsity: SLQ off by at most 10.00." in told
    values[("gaussian_width", "dense_hessian")] = (1.0,)
    told = answer(with_limits(results, values), "mlp-digits").limits
    assert not any("Held against" in sentence for sentence in told)


def test_limits_by_accuracy_are_told_apart_from_those_by_loss(results_file):
    results = Results.read(results_file(seeds=(0,)))
    by_accuracy = results.limits.query("limit == 'one_shot' and tolerance_factor == 1.0")
    by_accuracy = by_accuracy.assign(limit="one_shot_accuracy", sparsity_limit=0.875)
    both = pd.concat([results.limits, by_accuracy], ignore_index=True)
    told = answer(dataclasses.replace(results, limits=both), "mlp-digits").limits
    assert "87.50" not in told[0]
    assert told[1] == "Measured by accuracy in place of the loss: 87.50% (One-shot, accuracy)."
