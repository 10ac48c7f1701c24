"""Which method keeps its accuracy longest, as far as the seeds can tell."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from reports._format import difference_text, sparsity_text
from reports._guessing import chance_accuracy, classes_text, is_guessing
from reports._missing import lost_results
from reports._names import method_labels
from reports._results import Results
from reports._sentences import accuracy_text, have_intervals, listed, points_text, seeds_text
from reports._statistics import DIFFERENCE, FRACTION, MeanInterval, mean_interval, paired_difference

DROP_TOLERATED = 0.005  # half a point of accuracy: the least drop that readers of the field call one
_PLAINLY_BETTER = 0.02  # of accuracy
_DIFFERENCES_SHOWN = 2  # more are in the table, and nobody reads them in a sentence


@dataclass(frozen=True, eq=False)
class _Reach:
    """How far one method holds its accuracy: NaN sparsity if not even at the lowest sparsity asked for.

    `drops` are by sparsity, each by seed, `means` their means; `dense` is by seed. `is_whole`: nothing that the study
    asks of the method is missing.
    """

    label: str
    sparsity: float
    means: Mapping[float, MeanInterval]
    drops: Mapping[float, pd.Series]
    dense: pd.Series
    is_whole: bool

    @property
    def is_highest_tested(self) -> bool:
        return self.sparsity == max(self.means)

    @property
    def drop(self) -> MeanInterval:
        """The mean drop at the sparsity that is held, or at the lowest one."""
        return self.means[self.held_at]

    @property
    def largest_drop(self) -> float:
        """How far the interval of a drop reaches at any sparsity that the mean holds; NaN without an interval."""
        uppers = [drop.upper for at, drop in self.means.items() if at <= self.sparsity]
        return float(pd.Series(uppers, dtype="float64").max())

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
    """Return the sentence that answers which method keeps its accuracy longest, and what limits it."""
    rows = here.requested[here.requested["method"] != "dense"]
    if rows.empty:
        return "No pruned network has a result yet.", ()
    lacking = set(lost_results(here))
    reaches = [
        _reach(rows[rows["method"] == method], label, is_whole=method not in lacking)
        for method, label in method_labels(here.rows).items()
    ]
    known = [reach for reach in reaches if reach is not None]
    if not known:
        return "No pruned network has a dense reference to be held against.", ()
    chance = chance_accuracy(here)
    guessing = [reach for reach in known if is_guessing(reach.dense, chance) or _holds_a_guess(reach, chance)]
    able = [reach for reach in known if reach not in guessing]
    if not able:
        return _all_guess(guessing, chance), ()
    held = sorted((reach for reach in able if not np.isnan(reach.sparsity)), key=lambda reach: -reach.sparsity)
    sentence = _winners(held, able) if held else _nobody(able, is_everyone=not lacking)
    return sentence, (*_under_trained(able), *([_left_out(guessing, chance)] if guessing else []))


def _reach(rows: pd.DataFrame, label: str, *, is_whole: bool) -> _Reach | None:
    rows = rows.assign(drop=rows["dense_test_accuracy"] - rows["test_accuracy"]).dropna(subset="drop")
    if rows.empty:
        return None
    sparsities = sorted({float(at) for at in rows["sparsity"]})
    drops = {at: rows[rows["sparsity"] == at].groupby("seed")["drop"].mean() for at in sparsities}
    dense = rows.groupby("seed")["dense_test_accuracy"].mean()
    means = {at: mean_interval(by_seed, bounds=DIFFERENCE) for at, by_seed in drops.items()}
    reached = float("nan")
    for at, drop in means.items():
        if drop.mean > DROP_TOLERATED:
            break
        reached = at
    return _Reach(label, reached, means, drops, dense, is_whole)


def _winners(held: Sequence[_Reach], able: Sequence[_Reach]) -> str:
    at = held[0].sparsity
    best = [reach for reach in held if reach.sparsity == at]
    alone, has_intervals = len(best) == 1, have_intervals([reach.drop for reach in able])
    tied = _not_told_apart(best, able, at)
    keep = "keeps its accuracy" if alone else "keep their accuracy"
    longest = " longest" if has_intervals and len(able) > len(best) and not tied else ""
    whose = "its own dense network" if alone else "their own dense networks"
    tested = ", the highest sparsity tested" if best[0].is_highest_tested else " sparsity"
    by_mean, not_shown = _not_shown(best)
    said = (
        f"{listed([reach.label for reach in best])} {keep}{longest}{by_mean}: within 0.5 points of {whose} "
        f"up to {sparsity_text(at)}{tested} ({_drops_text(best)}).{not_shown}{_tied_text(best, tied, at)}"
    )
    if not has_intervals:  # one seed ranks nobody
        return f"With one seed, {said}"
    return f"{said}{_following([reach for reach in held if reach not in best and reach not in tied])}"


def _not_shown(best: Sequence[_Reach]) -> tuple[str, str]:
    """Return "by the mean" and that it is no more, where the interval of a drop reaches beyond what is tolerated."""
    largest = pd.Series([reach.largest_drop for reach in best], dtype="float64").max()
    if pd.isna(largest) or largest <= DROP_TOLERATED:
        return "", ""
    seeds = seeds_text([reach.drop for reach in best])
    reaches = f"the interval of the drop reaches to {difference_text(float(largest))} points"
    return f" by the mean of {seeds}", f" That is not shown: {reaches}."


def _under_trained(able: Sequence[_Reach]) -> list[str]:
    """Return one sentence where pruned networks are better than their dense ones by more than a drop is tolerated.

    The seeds tell the two apart, or the mean alone is as much as no good training leaves to pruning.
    """
    better = []
    for reach in able:
        at, drop = min(reach.means.items(), key=lambda mean: mean[1].mean)
        if drop.mean < -DROP_TOLERATED and (drop.excludes_zero or drop.mean < -_PLAINLY_BETTER):
            excess = mean_interval(-reach.drops[at], bounds=DIFFERENCE)
            better.append(f"{reach.label} at {sparsity_text(at)} by {points_text(excess)} points")
    if not better:
        return []
    return [f"Better than their own dense networks, which seem under-trained: {listed(better)}."]


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
    known = len(best) == 1 and len(tied) <= _DIFFERENCES_SHOWN and all(excess.num_values > 1 for excess in excesses)
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


def _nobody(able: Sequence[_Reach], *, is_everyone: bool) -> str:
    which = "No method" if is_everyone else "Of the methods that have results, none"
    nobody = f"{which} stays within 0.5 points of its own dense network, even at the lowest sparsity tested."
    whole = [reach for reach in able if reach.is_whole]
    if whole:  # what has only some of its results is not the closest of anything
        closest = min(whole, key=lambda reach: reach.drop.mean)
        tied = _not_told_apart([closest], whole, closest.held_at)
        nobody += f" The closest is {closest.label} ({_drops_text([closest])})."
        nobody += _tied_text([closest], tied, closest.held_at)
    return (
        nobody if have_intervals([reach.drop for reach in able]) else f"With one seed, {nobody[0].lower()}{nobody[1:]}"
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
    networks = f"The {kind} network itself" if is_one else f"The {kind} networks themselves"
    level = f"{shown[0] if is_one else f'{shown[0]} to {shown[-1]}'} {classes_text(chance)}"
    return f"{networks} cannot be told from guessing ({level}): train longer before comparing methods."


def _guess(reach: _Reach, by_dense: bool) -> MeanInterval:
    return mean_interval(reach.dense if by_dense else reach.pruned(), bounds=FRACTION)


def _left_out(guessing: Sequence[_Reach], chance: float) -> str:
    told = [f"{reach.label} ({accuracy_text(_guess(reach, is_guessing(reach.dense, chance)))})" for reach in guessing]
    return (
        "Left out of this comparison, because their dense or pruned networks cannot be told from guessing "
        f"{classes_text(chance)}: {listed(told)}."
    )
