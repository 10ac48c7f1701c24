"""Which method is the most accurate at the highest sparsity, as far as the seeds can tell."""

from collections.abc import Mapping, Sequence

import pandas as pd

from reports._format import sparsity_text
from reports._guessing import chance_accuracy, classes_text, is_guessing
from reports._names import method_labels
from reports._results import Results
from reports._sentences import accuracy_text, have_intervals, listed, points_text, seeds_text
from reports._statistics import FRACTION, MeanInterval, mean_interval, paired_difference


def at_highest(here: Results) -> list[str]:
    """Return who is ahead where pruning is hardest; drops alone would favour a method with a poor dense network."""
    rows = here.requested[(here.requested["method"] != "dense") & here.requested["test_accuracy"].notna()]
    rows = rows[rows["sparsity"] == rows["sparsity"].max()]
    by_seed = {
        label: rows[rows["method"] == name].groupby("seed")["test_accuracy"].mean()
        for name, label in method_labels(rows).items()
    }
    chance = chance_accuracy(here)
    dense = [group.groupby("seed")["dense_test_accuracy"].mean() for _, group in rows.groupby("method")]
    if len(by_seed) < 2 or all(is_guessing(accuracies, chance) for accuracies in dense):
        return []  # the headline says it
    place = f"{sparsity_text(float(rows['sparsity'].max()))}, the highest sparsity tested"
    ranked = sorted(by_seed, key=lambda label: -by_seed[label].mean())
    told = {label: mean_interval(by_seed[label], bounds=FRACTION) for label in ranked}
    if is_guessing(by_seed[ranked[0]], chance):
        best = f"the best, {ranked[0]}, has {accuracy_text(told[ranked[0]])} {classes_text(chance)}"
        return [f"At {place}, no method can be told from guessing: {best}."]
    return [_ranking(place, ranked, by_seed, told)]


def _ranking(
    place: str, ranked: Sequence[str], by_seed: Mapping[str, pd.Series], told: Mapping[str, MeanInterval]
) -> str:
    first, *others = ranked
    has_intervals = have_intervals(list(told.values()))
    with_one = "" if has_intervals else " with one seed"
    if has_intervals:
        apart = {label: paired_difference(by_seed[first], by_seed[label]).excludes_zero for label in others}
    else:
        apart = {label: told[label].mean < told[first].mean for label in others}
    tied = [first, *(label for label in others if not apart[label])]
    shown = {label: f"{label} with {accuracy_text(told[label])}" for label in ranked}
    if len(tied) == 1:
        difference = paired_difference(by_seed[first], by_seed[others[0]])
        seeds = f" (difference {points_text(difference)} points, {seeds_text([difference])})" if has_intervals else ""
        return f"Most accurate{with_one} at {place}: {shown[first]}, then {shown[others[0]]}{seeds}."
    if not has_intervals:
        return f"Most accurate{with_one} at {place}: {listed(tied)}, each with {accuracy_text(told[first])}."
    seeds = seeds_text([told[label] for label in tied])
    behind = [shown[label] for label in others if apart[label]]
    ahead = f"; {first} is ahead of {behind[0]}" if behind else ""
    return f"At {place}, {listed([shown[label] for label in tied])} cannot be told apart with {seeds}{ahead}."
