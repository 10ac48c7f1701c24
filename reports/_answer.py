"""The study's answer in words: which method keeps its accuracy longest, and whether the predicted limit was right."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from reports._format import nats_text, percent_text, sparsity_text
from reports._names import SOURCE_LABELS, limit_label, limits_in, method_labels, ordered, source_label
from reports._results import Results, names_in
from reports._statistics import MeanInterval, mean_interval

DROP_TOLERATED = 0.005  # half a point of accuracy: the least drop that readers of the field call one


@dataclass(frozen=True)
class Answer:
    """Sentences for one task.

    Attributes:
        headline: which method keeps its accuracy longest.
        highest: which method is the most accurate at the highest sparsity tested; empty when there is nothing to say.
        limits: one sentence or two per analysed network; empty without analyses.
        missing: what the study asked for and has no result; empty when all is there.
    """

    headline: str
    highest: tuple[str, ...]
    limits: tuple[str, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True)
class _Reach:
    """How far one method holds its accuracy: NaN sparsity if not even at the lowest sparsity asked for."""

    label: str
    sparsity: float
    drop: MeanInterval
    is_highest_tested: bool


def answer(results: Results, task: str) -> Answer:
    """Return the answer of one task, computed from its rows alone.

    A method holds its accuracy at a sparsity if its mean drop from its own dense network, taken seed by seed at the
    last epoch on the test set, is at most 0.5 points there and at every lower sparsity asked for.
    """
    here = results.only(task)
    sentences = [[_headline(here)], _at_highest(here), _limit_sentences(here), _missing(here)]
    # A line must not break between a mean and its interval.
    told = [tuple(text.replace(" ± ", "\u00a0±\u00a0") for text in part) for part in sentences]
    return Answer(told[0][0], *told[1:])


def _headline(here: Results) -> str:
    rows = here.requested[here.requested["method"] != "dense"]
    if rows.empty:
        return "No pruned network has a result yet."
    labels = method_labels(here.rows)
    reaches = [_reach(rows[rows["method"] == method], label) for method, label in labels.items()]
    known = [reach for reach in reaches if reach is not None]
    if not known:
        return "No pruned network has a dense reference to be held against."
    held = sorted((reach for reach in known if not np.isnan(reach.sparsity)), key=lambda reach: -reach.sparsity)
    return _winners(held, len(known)) if held else _nobody(known)


def _reach(rows: pd.DataFrame, label: str) -> _Reach | None:
    drops = (rows["dense_test_accuracy"] - rows["test_accuracy"]).groupby(rows["sparsity"])
    intervals = {float(sparsity): mean_interval(group) for sparsity, group in drops}
    intervals = {sparsity: drop for sparsity, drop in intervals.items() if drop.num_values}
    if not intervals:
        return None
    reach = _Reach(label, float("nan"), next(iter(intervals.values())), False)
    for sparsity, drop in sorted(intervals.items()):
        if drop.mean > DROP_TOLERATED:
            break
        reach = _Reach(label, sparsity, drop, sparsity == max(intervals))
    return reach


def _winners(held: Sequence[_Reach], num_methods: int) -> str:
    best = [reach for reach in held if reach.sparsity == held[0].sparsity]
    alone = len(best) == 1
    keep = "keeps its accuracy" if alone else "keep their accuracy"
    longest = " longest" if num_methods > len(best) else ""
    whose = "its own dense network" if alone else "their own dense networks"
    tested = ", the highest sparsity tested" if best[0].is_highest_tested else " sparsity"
    return (
        f"{_listed([reach.label for reach in best])} {keep}{longest}: within 0.5 points of {whose} "
        f"up to {sparsity_text(best[0].sparsity)}{tested} ({_drops_text(best)}).{_following(held, best[0].sparsity)}"
    )


def _following(held: Sequence[_Reach], best_sparsity: float) -> str:
    beaten = [reach for reach in held if reach.sparsity < best_sparsity]
    if not beaten:
        return ""
    following = [reach for reach in beaten if reach.sparsity == beaten[0].sparsity]
    return f" Next: {_listed([reach.label for reach in following])}, up to {sparsity_text(following[0].sparsity)}."


def _nobody(known: Sequence[_Reach]) -> str:
    closest = min(known, key=lambda reach: reach.drop.mean)
    return (
        "No method stays within 0.5 points of its own dense network, even at the lowest sparsity tested. "
        f"The closest is {closest.label} ({_drops_text([closest])})."
    )


def _drops_text(reaches: Sequence[_Reach]) -> str:
    drops = _listed([percent_text(reach.drop.mean, reach.drop.half_width) for reach in reaches])
    return f"mean drop {drops} points, {_seeds_text([reach.drop for reach in reaches])}"


def _seeds_text(intervals: Sequence[MeanInterval]) -> str:
    counts = sorted({interval.num_values for interval in intervals})
    return "one seed" if counts == [1] else f"{' to '.join(str(count) for count in counts)} seeds"


def _at_highest(here: Results) -> list[str]:
    """Return who is ahead where pruning is hardest; drops alone would favour a method with a poor dense network."""
    rows = here.requested[here.requested["method"] != "dense"]
    rows = rows[rows["sparsity"] == rows["sparsity"].max()]
    labels = method_labels(rows)
    means = {label: mean_interval(rows.loc[rows["method"] == name, "test_accuracy"]) for name, label in labels.items()}
    ranked = sorted((item for item in means.items() if item[1].num_values), key=lambda item: -item[1].mean)
    if len(ranked) < 2:
        return []
    (first, best), (second, other) = ranked[:2]
    overlap = "; their intervals overlap" if best.lower <= other.upper else ""
    accuracies = [f"{percent_text(interval.mean, interval.half_width)}%" for interval in (best, other)]
    return [
        f"Most accurate at {sparsity_text(float(rows['sparsity'].max()))}, the highest sparsity tested: "
        f"{first} with {accuracies[0]}, then {second} with {accuracies[1]} "
        f"({_seeds_text([best, other])}{overlap})."
    ]


def _limit_sentences(here: Results) -> list[str]:
    networks = dict(zip(here.rows["method"], here.rows["label"], strict=True))
    return [
        sentence
        for network in ordered(networks, here.limits["network"])
        for sentence in _network_limits(
            here.limits[here.limits["network"] == network], f"the dense network of {networks.get(network, network)}"
        )
    ]


def _network_limits(limits: pd.DataFrame, of_network: str) -> list[str]:
    is_by_accuracy = limits["limit"].str.endswith("_accuracy")  # these depend on no tolerance of the loss
    by_accuracy = _limit_parts(limits[is_by_accuracy])
    by_loss = limits[(limits["tolerance_factor"] == 1.0) & ~is_by_accuracy]
    predicted = _limit_parts(by_loss[by_loss["source"] != "measured"])
    measured = _limit_parts(by_loss[by_loss["source"] == "measured"])
    tolerance = f"at a loss tolerance of {nats_text(by_loss['loss_tolerance_nats'].mean())} nats"
    sentences = []
    if predicted:
        text = f"Predicted sparsity limit of {of_network}, {tolerance}: {_listed(predicted)}."
        sentences.append(f"{text} Measured: {_listed(measured) if measured else 'not in this study'}.")
    elif measured:
        sentences.append(f"Measured sparsity limit of {of_network}, {tolerance}: {_listed(measured)}.")
    if by_accuracy:
        sentences.append(f"Measured by accuracy in place of the loss: {_listed(by_accuracy)}.")
    return [*sentences, *_oracle_sentence(by_loss)]


def _limit_parts(limits: pd.DataFrame) -> list[str]:
    """Return one part per limit; SLQ speaks where there is both it and the dense Hessian."""
    parts = []
    for limit in limits_in(limits):
        rows = limits[limits["limit"] == limit]
        estimated = rows[rows["source"] != "dense_hessian"]
        interval = mean_interval((rows if estimated.empty else estimated)["sparsity_limit"])
        if interval.num_values:
            parts.append(f"{percent_text(interval.mean, interval.half_width)}% ({limit_label(limit)})")
    return parts


def _oracle_sentence(limits: pd.DataFrame) -> list[str]:
    """Return how far each kind of estimate is from the dense Hessian, in one sentence."""
    key = ["limit", "curvature", "seed"]
    dense = limits[limits["source"] == "dense_hessian"].set_index(key)["sparsity_limit"]
    told = []
    for source in ordered(SOURCE_LABELS, limits["source"]):
        difference = (limits[limits["source"] == source].set_index(key)["sparsity_limit"] - dense).abs().max()
        if source not in ("dense_hessian", "measured") and not np.isnan(difference):
            told.append(f"{source_label(source)} off by at most {percent_text(float(difference))}")
    return [f"Held against the dense Hessian, in points of sparsity: {_listed(told)}."] if told else []


def _missing(here: Results) -> list[str]:
    """Return what the study asked for and this task has no row for."""
    rows, sentences = here.requested, []
    for (method, label), asked in _asked(here).items():
        mine = rows[rows["method"] == method]
        found = {(round(sparsity, 9), seed) for sparsity, seed in zip(mine["sparsity"], mine["seed"], strict=True)}
        lost = [(sparsity, seed) for sparsity, seed in asked if (round(sparsity, 9), seed) not in found]
        if lost:
            places = _listed([f"{sparsity_text(sparsity)} seed {seed}" for sparsity, seed in lost[:6]])
            more = f" and {len(lost) - 6} more" if len(lost) > 6 else ""
            sentences.append(f"{label}: {len(lost)} of {len(asked)} results are missing ({places}{more}).")
    analyses = names_in(here.study.get("analyses", ()))
    if analyses and here.limits.empty and here.spectra.empty:
        sentences.append("The analyses that the study asks for have no result yet.")
    elif "limit" in analyses and "measured" not in set(here.limits["source"]):
        sentences.append("The analysis limit has no result yet.")
    return sentences


def _asked(here: Results) -> dict[tuple[str, str], list[tuple[float, int]]]:
    """Return (method, label) -> (sparsity, seed) of every row that the plan holds, in its order."""
    asked: dict[tuple[str, str], list[tuple[float, int]]] = {}
    for row in here.planned:
        asked.setdefault((row["method"], row["label"]), []).append((float(row["sparsity"]), int(row["seed"])))
    return asked


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
