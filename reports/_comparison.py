"""Which method keeps its accuracy longest and which is ahead at the highest sparsity, as far as the seeds can tell."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from reports._format import sparsity_text
from reports._guessing import chance_accuracy, classes_text, is_guessing
from reports._names import method_labels
from reports._results import Results
from reports._sentences import accuracy_text, have_intervals, listed, points_text, seeds_text
from reports._statistics import DIFFERENCE, FRACTION, MeanInterval, mean_interval, paired_difference

DROP_TOLERATED = 0.005  # half a point of accuracy: the least drop that readers of the field call one


@dataclass(frozen=True, eq=False)
class _Reach:
    """How far one method holds its accuracy: NaN sparsity if not even at the lowest sparsity asked for.

    `drops` are by sparsity, each by seed; `drop` is their mean at `sparsity`, or at the lowest one. `dense` is by seed.
    """

    label: str
    sparsity: float
    drop: MeanInterval
    is_highest_tested: bool
    drops: Mapping[float, pd.Series]
    dense: pd.Series

    @property
    def held_at(self) -> float:
        return min(self.drops) if np.isnan(self.sparsity) else self.sparsity

    def pruned(self) -> pd.Series:
        """Return the accuracies by seed at the sparsity that `drop` is of."""
        drops = self.drops[self.held_at]
        return self.dense[drops.index] - drops

    def told_apart(self, other: "_Reach", sparsity: float) -> bool:
        """Return whether the drops of two methods differ at a sparsity, by the interval of their paired difference."""
        return sparsity not in other.drops or self.excess(other, sparsity).excludes_zero

    def excess(self, other: "_Reach", sparsity: float) -> MeanInterval:
        return paired_difference(other.drops[sparsity], self.drops[sparsity])


def headline(here: Results) -> tuple[str, tuple[str, ...]]:
    """Return the sentence that answers which method keeps its accuracy longest, and one about methods left out."""
    rows = here.requested[here.requested["method"] != "dense"]
    if rows.empty:
        return "No pruned network has a result yet.", ()
    reaches = [_reach(rows[rows["method"] == method], label) for method, label in method_labels(here.rows).items()]
    known = [reach for reach in reaches if reach is not None]
    if not known:
        return "No pruned network has a dense reference to be held against.", ()
    chance = chance_accuracy(here)
    guessing = [reach for reach in known if is_guessing(reach.dense, chance) or _holds_a_guess(reach, chance)]
    able = [reach for reach in known if reach not in guessing]
    if not able:
        return _all_guess(guessing, chance), ()
    held = sorted((reach for reach in able if not np.isnan(reach.sparsity)), key=lambda reach: -reach.sparsity)
    sentence = _winners(held, able) if held else _nobody(able)
    return sentence, ((_left_out(guessing, chance),) if guessing else ())


def _reach(rows: pd.DataFrame, label: str) -> _Reach | None:
    rows = rows.assign(drop=rows["dense_test_accuracy"] - rows["test_accuracy"]).dropna(subset="drop")
    if rows.empty:
        return None
    sparsities = sorted({float(at) for at in rows["sparsity"]})
    drops = {at: rows[rows["sparsity"] == at].groupby("seed")["drop"].mean() for at in sparsities}
    dense = rows.groupby("seed")["dense_test_accuracy"].mean()
    intervals = {at: mean_interval(by_seed, bounds=DIFFERENCE) for at, by_seed in drops.items()}
    reached, highest = float("nan"), max(intervals)
    for at, drop in intervals.items():
        if drop.mean > DROP_TOLERATED:
            break
        reached = at
    shown = intervals[min(intervals) if np.isnan(reached) else reached]
    return _Reach(label, reached, shown, reached == highest, drops, dense)


def _winners(held: Sequence[_Reach], able: Sequence[_Reach]) -> str:
    at = held[0].sparsity
    best = [reach for reach in held if reach.sparsity == at]
    alone = len(best) == 1
    tied = _not_told_apart(best, able, at)
    keep = "keeps its accuracy" if alone else "keep their accuracy"
    longest = " longest" if len(able) > len(best) and not tied else ""
    whose = "its own dense network" if alone else "their own dense networks"
    tested = ", the highest sparsity tested" if best[0].is_highest_tested else " sparsity"
    return (
        f"{listed([reach.label for reach in best])} {keep}{longest}: within 0.5 points of {whose} "
        f"up to {sparsity_text(at)}{tested} ({_drops_text(best)}).{_tied_text(best, tied, at)}"
        f"{_following([reach for reach in held if reach not in best and reach not in tied])}"
    )


def _not_told_apart(best: Sequence[_Reach], able: Sequence[_Reach], at: float) -> list[_Reach]:
    """Return the others whose drop differs from that of one of the best by no more than the seeds do."""
    if not have_intervals([reach.drop for reach in able]):
        return []
    others = [reach for reach in able if reach not in best]
    return [other for other in others if not all(winner.told_apart(other, at) for winner in best)]


def _tied_text(best: Sequence[_Reach], tied: Sequence[_Reach], at: float) -> str:
    if not tied:
        return ""
    excesses = [best[0].excess(other, at) for other in tied]
    what = f" ({'difference' if len(tied) == 1 else 'differences'} in drop {{}} points)"
    known = len(best) == 1 and all(excess.num_values > 1 for excess in excesses)
    shown = what.format(listed([points_text(excess, signed=True) for excess in excesses])) if known else ""
    return (
        f" {listed([reach.label for reach in tied])} cannot be told apart from {'it' if len(best) == 1 else 'them'} "
        f"there with {seeds_text(excesses)}{shown}."
    )


def _following(beaten: Sequence[_Reach]) -> str:
    if not beaten:
        return ""
    following = [reach for reach in beaten if reach.sparsity == beaten[0].sparsity]
    return f" Next: {listed([reach.label for reach in following])}, up to {sparsity_text(following[0].sparsity)}."


def _nobody(able: Sequence[_Reach]) -> str:
    closest = min(able, key=lambda reach: reach.drop.mean)
    tied = _not_told_apart([closest], able, closest.held_at)
    return (
        "No method stays within 0.5 points of its own dense network, even at the lowest sparsity tested. "
        f"The closest is {closest.label} ({_drops_text([closest])}).{_tied_text([closest], tied, closest.held_at)}"
    )


def _drops_text(reaches: Sequence[_Reach]) -> str:
    intervals = [reach.drop for reach in reaches]
    drops = listed([points_text(drop) for drop in intervals])
    return f"mean drop {drops} points, {seeds_text(intervals)}" if have_intervals(intervals) else f"drop {drops} points"


def _holds_a_guess(reach: _Reach, chance: float) -> bool:
    return not np.isnan(reach.sparsity) and is_guessing(reach.pruned(), chance)


def _all_guess(guessing: Sequence[_Reach], chance: float) -> str:
    by_dense = all(is_guessing(reach.dense, chance) for reach in guessing)
    told = sorted((_guess(reach, by_dense) for reach in guessing), key=lambda accuracy: accuracy.mean)
    shown = [accuracy_text(accuracy) for accuracy in told]
    kind = "dense" if by_dense else "pruned"
    is_one = len(set(shown)) == 1
    networks = f"The {kind} network itself is" if is_one else f"The {kind} networks themselves are"
    level = f"{shown[0] if is_one else f'{shown[0]} to {shown[-1]}'} {classes_text(chance)}"
    return f"{networks} at the level of guessing ({level}): train longer before comparing methods."


def _guess(reach: _Reach, by_dense: bool) -> MeanInterval:
    return mean_interval(reach.dense if by_dense else reach.pruned(), bounds=FRACTION)


def _left_out(guessing: Sequence[_Reach], chance: float) -> str:
    told = [f"{reach.label} ({accuracy_text(_guess(reach, is_guessing(reach.dense, chance)))})" for reach in guessing]
    return (
        "Left out of this comparison, because their dense or pruned networks are at the level of guessing "
        f"{classes_text(chance)}: {listed(told)}."
    )


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
        return [f"At {place}, no method is better than guessing: {best}."]
    return [_ranking(place, ranked, by_seed, told)]


def _ranking(
    place: str, ranked: Sequence[str], by_seed: Mapping[str, pd.Series], told: Mapping[str, MeanInterval]
) -> str:
    first, *others = ranked
    has_intervals = have_intervals(list(told.values()))
    if has_intervals:
        apart = {label: paired_difference(by_seed[first], by_seed[label]).excludes_zero for label in others}
    else:
        apart = {label: told[label].mean < told[first].mean for label in others}
    tied = [first, *(label for label in others if not apart[label])]
    shown = {label: f"{label} with {accuracy_text(told[label])}" for label in ranked}
    if len(tied) == 1:
        difference = paired_difference(by_seed[first], by_seed[others[0]])
        seeds = f" (difference {points_text(difference)} points, {seeds_text([difference])})" if has_intervals else ""
        return f"Most accurate at {place}: {shown[first]}, then {shown[others[0]]}{seeds}."
    if not has_intervals:
        return f"Most accurate at {place}: {listed(tied)}, each with {accuracy_text(told[first])}."
    seeds = seeds_text([told[label] for label in tied])
    behind = [shown[label] for label in others if apart[label]]
    ahead = f"; {first} is ahead of {behind[0]}" if behind else ""
    return f"At {place}, {listed([shown[label] for label in tied])} cannot be told apart with {seeds}{ahead}."
