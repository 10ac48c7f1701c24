import dataclasses

import numpy as np
import pytest
from scipy import stats

from reports._answer import answer
from reports._results import Results


def read_with(results_file, drops, seeds=(0,), dense=0.9, **changes):
    """Return results whose drops from dense are exactly those given, {method: {sparsity: drop}}."""
    sparsities = sorted({sparsity for by_sparsity in drops.values() for sparsity in by_sparsity})
    changes = {"analyses": False, "rounds": False} | changes
    results = Results.read(results_file(methods=tuple(drops), sparsities=sparsities, seeds=seeds, **changes))
    rows = results.rows.assign(dense_test_accuracy=dense)
    rows["test_accuracy"] = [
        dense - drops[method][sparsity] for method, sparsity in zip(rows["method"], rows["sparsity"], strict=True)
    ]
    return dataclasses.replace(results, rows=rows)


def with_noise(results, method, noise):
    """Add noise[seed] to the drops of one method; those of another method keep theirs."""
    mine = results.rows["method"] == method
    lost = results.rows["seed"].map(dict(enumerate(noise))).where(mine, 0.0)
    rows = results.rows.assign(test_accuracy=results.rows["test_accuracy"] - lost)
    return dataclasses.replace(results, rows=rows)


def test_the_method_that_holds_to_the_highest_sparsity_is_named_then_the_next(results_file):
    drops = {"lomp": {0.8: 0.0, 0.9: 0.1, 0.95: 0.2}, "imp": {0.8: 0.0, 0.9: 0.004, 0.95: 0.02}}
    headline = answer(read_with(results_file, drops, seeds=(0, 1)), "mlp-digits").headline
    assert headline == (
        "IMP keeps its accuracy longest: within 0.5 points of its own dense network up to 90% sparsity "
        "(mean drop 0.40\u00a0±\u00a00.00 points, 2 seeds). Next: LOMP, up to 80%."
    )


def test_one_seed_ranks_nobody_and_the_answer_itself_says_so(results_file):
    drops = {"lomp": {0.8: 0.0, 0.9: 0.1, 0.95: 0.2}, "imp": {0.8: 0.0, 0.9: 0.004, 0.95: 0.02}}
    said = answer(read_with(results_file, drops), "mlp-digits")
    assert said.headline == (
        "With one seed, IMP keeps its accuracy: within 0.5 points of its own dense network up to 90% sparsity "
        "(drop 0.40 points)."
    )
    assert said.highest[0].startswith("Most accurate with one seed at 95%")


def test_what_only_the_mean_keeps_is_not_called_shown(results_file):
    results = read_with(results_file, {"lomp": {0.8: 0.001, 0.9: 0.002}}, seeds=(0, 1, 2))
    said = answer(with_noise(results, "lomp", (-0.01, 0.0, 0.01)), "mlp-digits").headline
    half_width = 100 * stats.t.ppf(0.975, 2) * 0.01 / np.sqrt(3)
    assert said == (
        "LOMP keeps its accuracy by the mean of 3 seeds: within 0.5 points of its own dense network up to 90%, the "
        f"highest sparsity tested (mean drop 0.20\u00a0±\u00a0{half_width:.2f} points, 3 seeds). That is not shown: "
        f"the interval of the drop reaches to +{0.2 + half_width:.2f} points."
    )


def test_an_interval_beyond_what_is_tolerated_at_a_lower_sparsity_counts_as_well(results_file):
    results = read_with(results_file, {"lomp": {0.8: 0.001, 0.9: 0.002}}, seeds=(0, 1))
    is_lower = results.rows["sparsity"] == 0.8
    noise = results.rows["seed"].map({0: -0.02, 1: 0.02}).where(is_lower, 0.0)
    rows = results.rows.assign(test_accuracy=results.rows["test_accuracy"] - noise)
    said = answer(dataclasses.replace(results, rows=rows), "mlp-digits").headline
    assert "by the mean of 2 seeds: " in said
    assert f"reaches to +{0.1 + 100 * stats.t.ppf(0.975, 1) * 0.02:.2f} points" in said


@pytest.mark.parametrize(("drop", "is_told"), [(-0.02, True), (-0.004, False)])
def test_a_pruned_network_better_than_its_dense_one_tells_that_it_is_under_trained(results_file, drop, is_told):
    said = answer(read_with(results_file, {"lomp": {0.8: 0.0, 0.9: drop}}, seeds=(0, 1)), "mlp-digits")
    told = (
        "Better than their own dense networks, which seem under-trained: LOMP at 90% by 2.00\u00a0±\u00a00.00 points."
    )
    assert said.notes == ((told,) if is_told else ())


@pytest.mark.parametrize(("drop", "is_told"), [(-0.006, False), (-0.03, True)])
def test_a_dense_network_is_not_blamed_for_what_the_seeds_do(results_file, drop, is_told):
    results = read_with(results_file, {"lomp": {0.8: 0.0, 0.9: drop}}, seeds=(0, 1))
    noise = results.rows["seed"].map({0: -0.01, 1: 0.01}).where(results.rows["sparsity"] == 0.9, 0.0)
    rows = results.rows.assign(test_accuracy=results.rows["test_accuracy"] - noise)
    notes = answer(dataclasses.replace(results, rows=rows), "mlp-digits").notes
    assert any("under-trained" in note for note in notes) == is_told


def test_a_method_with_only_part_of_its_results_is_never_the_closest(results_file):
    drops = {"lomp": {0.8: 0.1, 0.9: 0.2}, "imp": {0.8: 0.01, 0.9: 0.3}}
    results = read_with(results_file, drops, seeds=(0, 1))
    lost = (results.rows["method"] == "imp") & (results.rows["sparsity"] == 0.9) & (results.rows["seed"] == 1)
    said = answer(dataclasses.replace(results, rows=results.rows[~lost]), "mlp-digits").headline
    assert said.startswith("Of the methods that have results, none stays within 0.5 points")
    assert "The closest is LOMP (" in said
    lost |= (results.rows["method"] == "lomp") & (results.rows["sparsity"] == 0.8)
    said = answer(dataclasses.replace(results, rows=results.rows[~lost]), "mlp-digits").headline
    assert "closest" not in said


def test_a_recovery_beyond_a_collapse_does_not_count(results_file):
    drops = {"lomp": {0.8: 0.0, 0.9: 0.3, 0.95: 0.0}, "imp": {0.8: 0.0, 0.9: 0.0, 0.95: 0.3}}
    headline = answer(read_with(results_file, drops, seeds=(0, 1)), "mlp-digits").headline
    assert headline.startswith("IMP keeps its accuracy longest")


def test_methods_that_tie_are_all_named_and_none_keeps_it_longest(results_file):
    drops = {"lomp": {0.8: 0.0}, "imp": {0.8: 0.001}}
    headline = answer(read_with(results_file, drops), "mlp-digits").headline
    assert headline.startswith(
        "With one seed, LOMP and IMP keep their accuracy: within 0.5 points of their own dense networks"
    )
    assert "80%, the highest sparsity tested (drop 0.00 and 0.10 points)" in headline
    assert "Next" not in headline


def test_a_single_method_is_not_called_the_longest(results_file):
    headline = answer(read_with(results_file, {"lomp": {0.8: 0.0, 0.9: 0.1}}), "mlp-digits").headline
    assert headline.startswith("With one seed, LOMP keeps its accuracy: within")


def test_when_no_method_holds_the_closest_is_named(results_file):
    drops = {"lomp": {0.8: 0.1, 0.9: 0.2}, "imp": {0.8: 0.012, 0.9: 0.1}}
    headline = answer(read_with(results_file, drops), "mlp-digits").headline
    assert headline.startswith("With one seed, no method stays within 0.5 points")
    assert headline.endswith("The closest is IMP (drop 1.20 points).")


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


def test_the_most_accurate_at_the_highest_sparsity_is_told_beside_who_dropped_least(results_file):
    drops = {"lomp": {0.8: 0.0, 0.9: 0.2}, "imp": {0.8: 0.1, 0.9: 0.1}}
    said = answer(read_with(results_file, drops), "mlp-digits")
    assert said.headline.startswith("With one seed, LOMP keeps its accuracy: ")
    assert said.highest == (
        "Most accurate with one seed at 90%, the highest sparsity tested: IMP with 80.00%, then LOMP with 70.00%.",
    )


def test_a_method_that_breaks_earlier_by_no_more_than_the_seeds_do_is_a_tie(results_file):
    drops = {"lomp": {0.8: 0.0, 0.9: 0.006}, "imp": {0.8: 0.0, 0.9: 0.004}, "random": {0.8: 0.1, 0.9: 0.3}}
    results = with_noise(read_with(results_file, drops, seeds=(0, 1, 2)), "lomp", (-0.01, 0.0, 0.01))
    half_width = 100 * stats.t.ppf(0.975, 2) * 0.01 / np.sqrt(3)
    assert answer(results, "mlp-digits").headline == (
        "IMP keeps its accuracy: within 0.5 points of its own dense network up to 90%, the highest sparsity tested "
        "(mean drop 0.40\u00a0±\u00a00.00 points, 3 seeds). LOMP cannot be told apart from it there with 3 seeds "
        f"(difference in drop +0.20\u00a0±\u00a0{half_width:.2f} points)."
    )


def test_noise_that_all_methods_share_is_no_tie(results_file):
    results = read_with(results_file, {"lomp": {0.9: 0.006}, "imp": {0.9: 0.004}}, seeds=(0, 1, 2))
    for method in ("lomp", "imp"):
        results = with_noise(results, method, (-0.01, 0.0, 0.01))
    headline = answer(results, "mlp-digits").headline
    assert headline.startswith("IMP keeps its accuracy longest")
    assert "told apart" not in headline


def test_what_is_beaten_beyond_the_seeds_spread_is_still_told_beside_a_tie(results_file):
    drops = {"lomp": {0.8: 0.0, 0.9: 0.006}, "imp": {0.8: 0.0, 0.9: 0.004}, "random": {0.8: 0.0, 0.9: 0.3}}
    results = with_noise(read_with(results_file, drops, seeds=(0, 1, 2)), "lomp", (-0.01, 0.0, 0.01))
    assert answer(results, "mlp-digits").headline.endswith("points). Next: Random, up to 80%.")


def test_the_closest_method_has_ties_as_well(results_file):
    drops = {"lomp": {0.9: 0.021}, "imp": {0.9: 0.02}}
    results = with_noise(read_with(results_file, drops, seeds=(0, 1)), "lomp", (-0.01, 0.01))
    assert "LOMP cannot be told apart from it there with 2 seeds" in answer(results, "mlp-digits").headline


def test_methods_without_a_common_seed_are_not_told_apart(results_file):
    results = read_with(results_file, {"lomp": {0.9: 0.1}, "imp": {0.9: 0.0}}, seeds=(0, 1, 2, 3))
    is_apart = (results.rows["method"] == "imp") == (results.rows["seed"] < 2)
    said = answer(dataclasses.replace(results, rows=results.rows[is_apart]), "mlp-digits")
    assert said.headline.startswith("IMP keeps its accuracy: ")
    assert said.headline.endswith("LOMP cannot be told apart from it there with no common seed.")
    assert "cannot be told apart" in said.highest[0]


def test_at_the_highest_sparsity_a_tie_is_no_ranking(results_file):
    drops = {"lomp": {0.9: 0.1}, "imp": {0.9: 0.099}, "random": {0.9: 0.4}}
    results = with_noise(read_with(results_file, drops, seeds=(0, 1, 2)), "lomp", (-0.01, 0.0, 0.01))
    (sentence,) = answer(results, "mlp-digits").highest
    assert sentence == (
        "At 90%, the highest sparsity tested, IMP with 80.10\u00a0±\u00a00.00% and LOMP with 80.00\u00a0±\u00a02.48% "
        "cannot be told apart with 3 seeds; IMP is ahead of Random with 50.00\u00a0±\u00a00.00%."
    )


def test_a_ranking_of_several_seeds_tells_their_paired_difference(results_file):
    results = read_with(results_file, {"lomp": {0.9: 0.2}, "imp": {0.9: 0.1}}, seeds=(0, 1, 2))
    for method in ("lomp", "imp"):
        results = with_noise(results, method, (-0.2, 0.0, 0.2))
    (sentence,) = answer(results, "mlp-digits").highest
    assert "IMP with 80.00\u00a0[30.32,\u00a0100.00]%, then LOMP with 70.00\u00a0[20.32,\u00a0100.00]%" in sentence
    assert sentence.endswith("(difference 10.00\u00a0±\u00a00.00 points, 3 seeds).")


def test_with_one_seed_it_is_said_that_nothing_has_an_interval(results_file):
    drops = {"lomp": {0.8: 0.0, 0.9: 0.2}, "imp": {0.8: 0.1, 0.9: 0.1}}
    said = answer(read_with(results_file, drops, analyses=True), "mlp-digits")
    told = " ".join(said.sentences)
    assert said.notes == ("One seed: no number has an interval, and any difference may be chance.",)
    assert "±" not in told
    assert answer(read_with(results_file, drops, seeds=(0, 1)), "mlp-digits").notes == ()


def test_equal_accuracies_of_one_seed_are_no_ranking(results_file):
    (sentence,) = answer(read_with(results_file, {"lomp": {0.9: 0.2}, "imp": {0.9: 0.2}}), "mlp-digits").highest
    assert (
        sentence == "Most accurate with one seed at 90%, the highest sparsity tested: LOMP and IMP, each with 70.00%."
    )


@pytest.mark.parametrize(("seeds", "shown"), [((0,), "12.00%"), ((0, 1, 2), "12.00\u00a0±\u00a00.00%")])
def test_networks_at_the_level_of_guessing_are_not_compared(results_file, seeds, shown):
    drops = {"lomp": {0.8: 0.0, 0.9: -0.04}, "imp": {0.8: 0.02, 0.9: 0.01}}
    said = answer(read_with(results_file, drops, seeds, dense=0.12), "mlp-digits")
    assert said.headline == (
        f"The dense network itself cannot be told from guessing ({shown} with 10 classes): "
        "train longer before comparing methods."
    )
    assert said.highest == ()


def test_dense_networks_that_differ_are_told_from_the_worst_to_the_best(results_file):
    results = read_with(results_file, {"lomp": {0.9: 0.0}, "imp": {0.9: 0.0}}, dense=0.12)
    dense = results.rows["dense_test_accuracy"].where(results.rows["method"] == "imp", 0.085)
    said = answer(dataclasses.replace(results, rows=results.rows.assign(dense_test_accuracy=dense)), "mlp-digits")
    assert said.headline.startswith(
        "The dense networks themselves cannot be told from guessing (8.50% to 12.00% with 10 classes)"
    )


def test_one_method_whose_dense_network_guesses_is_left_out_and_named(results_file):
    results = read_with(results_file, {"lomp": {0.9: 0.0}, "imp": {0.9: 0.001}, "random": {0.9: 0.1}})
    is_lomp = results.rows["method"] == "lomp"
    rows = results.rows.assign(
        dense_test_accuracy=results.rows["dense_test_accuracy"].mask(is_lomp, 0.11),
        test_accuracy=results.rows["test_accuracy"].mask(is_lomp, 0.11),
    )
    said = answer(dataclasses.replace(results, rows=rows), "mlp-digits")
    assert said.headline.startswith("With one seed, IMP keeps its accuracy: ")
    assert said.notes[0].endswith("cannot be told from guessing with 10 classes: LOMP (11.00%).")


def test_a_collapse_at_every_sparsity_is_no_lack_of_training(results_file):
    said = answer(read_with(results_file, {"lomp": {0.98: 0.8}, "imp": {0.98: 0.79}}), "mlp-digits")
    assert said.headline.startswith("With one seed, no method stays within 0.5 points")
    assert said.highest == (
        "At 98%, the highest sparsity tested, no method can be told from guessing: the best, IMP, has 11.00% "
        "with 10 classes.",
    )


def test_without_a_number_of_classes_nothing_is_said_of_guessing(results_file):
    said = answer(read_with(results_file, {"lomp": {0.9: 0.0}}, dense=0.1, num_classes=None), "mlp-digits")
    assert said.headline.startswith("With one seed, LOMP keeps its accuracy")


def test_an_interval_that_reaches_down_to_guessing_names_no_closest_and_no_limit(results_file):
    drops = {"lomp": {0.9: 0.05}, "imp": {0.9: 0.06}}
    results = read_with(results_file, drops, seeds=(0, 1), dense=0.19, analyses=True)
    spread = results.rows["seed"].map({0: -0.02, 1: 0.02})
    rows = results.rows.assign(dense_test_accuracy=0.19 + spread, test_accuracy=results.rows["test_accuracy"] + spread)
    said = answer(dataclasses.replace(results, rows=rows), "mlp-digits")
    assert said.headline == (
        "The dense network itself cannot be told from guessing (19.00\u00a0[0.00,\u00a044.41]% with 10 classes): "
        "train longer before comparing methods."
    )
    assert (said.notes, said.highest, said.limits) == ((), (), ())


def test_one_method_is_not_compared_with_itself(results_file):
    assert answer(read_with(results_file, {"lomp": {0.9: 0.2}}), "mlp-digits").highest == ()


def test_missing_results_are_counted_and_named(results_file):
    results = Results.read(results_file(methods=("dense", "lomp", "imp"), analyses=False))
    lost = (results.rows["method"] == "lomp") & (results.rows["sparsity"] == 0.95) & (results.rows["seed"] == 2)
    results = dataclasses.replace(results, rows=results.rows[~lost])
    assert answer(results, "mlp-digits").missing == ("LOMP: no result for 1 of 15 networks (95% seed 2).",)


def test_a_method_without_any_result_and_analyses_without_any_are_missing(results_file):
    results = Results.read(results_file(methods=("dense", "lomp", "imp"), seeds=(0,)))
    results = dataclasses.replace(
        results,
        rows=results.rows[results.rows["method"] != "imp"],
        limits=results.limits[:0],
        spectra=results.spectra[:0],
        row_norms=results.row_norms[:0],
    )
    missing = answer(results, "mlp-digits").missing
    assert missing[0].startswith("IMP: no result for 5 of 5 networks (80% seed 0, ")
    assert missing[1] == "No result of the analyses spectrum and limit."


def test_a_complete_study_misses_nothing(results_file):
    assert answer(Results.read(results_file()), "mlp-digits").missing == ()
