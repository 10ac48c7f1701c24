"""Predicted and measured sparsity limits of a task, in words."""

import pandas as pd

from reports._format import NOT_REACHED, fraction_text, nats_text, percent_text
from reports._guessing import chance_accuracy, is_guessing
from reports._names import SOURCE_LABELS, limit_label, limits_in, ordered, source_label
from reports._reached import with_reached
from reports._results import Results
from reports._sentences import accuracy_text, listed
from reports._statistics import FRACTION, mean_interval

_EXPLAINED = "Not reached: the tolerance is kept even with no weight left, so that there is no limit to compare."


def limit_sentences(here: Results) -> list[str]:
    """Return one sentence or more per analysed network that is no guess, from the limits table of one task."""
    chance = chance_accuracy(here)
    networks = dict(zip(here.rows["method"], here.rows["label"], strict=True))
    limits = with_reached(here, here.limits)
    sentences = [
        sentence
        for network in ordered(networks, limits["network"])
        if not is_guessing(_dense_accuracies(here, network), chance)
        for sentence in _network_limits(
            limits[limits["network"] == network], f"the dense network of {networks.get(network, network)}"
        )
    ]
    return [*sentences, _EXPLAINED] if any(NOT_REACHED in sentence for sentence in sentences) else sentences


def _dense_accuracies(here: Results, network: str) -> pd.Series:
    rows = here.rows[here.rows["method"] == network]
    return rows.groupby("seed")["dense_test_accuracy"].mean()


def _network_limits(limits: pd.DataFrame, of_network: str) -> list[str]:
    is_by_accuracy = limits["limit"].str.endswith("_accuracy")  # these depend on no tolerance of the loss
    by_accuracy = _limit_parts(limits[is_by_accuracy])
    by_loss = limits[(limits["tolerance_factor"] == 1.0) & ~is_by_accuracy]
    predicted = _limit_parts(by_loss[by_loss["source"] != "measured"])
    measured = _limit_parts(by_loss[by_loss["source"] == "measured"])
    tolerance = f"at a loss tolerance of {nats_text(by_loss['loss_tolerance_nats'].mean())} nats"
    sentences = []
    if predicted:
        text = f"Predicted sparsity limit of {of_network}, {tolerance}: {listed(predicted)}."
        sentences.append(f"{text} Measured: {listed(measured) if measured else 'not in this study'}.")
    elif measured:
        sentences.append(f"Measured sparsity limit of {of_network}, {tolerance}: {listed(measured)}.")
    if by_accuracy:
        sentences.append(f"Measured by accuracy in place of the loss: {listed(by_accuracy)}.")
    return [*sentences, *_oracle_sentence(by_loss)]


def _limit_parts(limits: pd.DataFrame) -> list[str]:
    """Return one part per limit; SLQ speaks where there is both it and the dense Hessian."""
    parts = []
    for limit in limits_in(limits):
        rows = limits[limits["limit"] == limit].dropna(subset="sparsity_limit")
        estimated = rows[rows["source"] != "dense_hessian"]
        rows = rows if estimated.empty else estimated
        if len(rows):
            parts.append(_limit_part(rows, limit_label(limit)))
    return parts


def _limit_part(rows: pd.DataFrame, label: str) -> str:
    num_not_reached, mean = int((~rows["is_reached"]).sum()), float(rows["sparsity_limit"].mean())
    if num_not_reached == 0:
        limit = mean_interval(rows["sparsity_limit"], bounds=FRACTION)
        if limit.lower <= 0.0 and limit.upper >= 1.0:  # no limit there is lies outside
            return f"{fraction_text(mean)}% ({label}; the {limit.num_values} seeds do not agree)"
        return f"{accuracy_text(limit)} ({label})"
    if num_not_reached < len(rows):
        return f"{fraction_text(mean)}% ({label}; {NOT_REACHED} with {num_not_reached} of {len(rows)} seeds)"
    if mean < 1.0:
        return f"beyond {fraction_text(mean)}%, the largest sparsity evaluated ({label})"
    return f"{NOT_REACHED} ({label})"


def _oracle_sentence(limits: pd.DataFrame) -> list[str]:
    """Return how far each kind of estimate is from the dense Hessian, in one sentence; not where neither is reached."""
    key = ["limit", "curvature", "seed"]
    dense = limits[limits["source"] == "dense_hessian"].set_index(key)
    told: list[str] = []
    for source in ordered(SOURCE_LABELS, limits["source"]):
        mine = limits[limits["source"] == source].set_index(key)
        difference = (mine["sparsity_limit"] - dense["sparsity_limit"]).abs()
        is_reached = mine["is_reached"].reindex(difference.index) | dense["is_reached"].reindex(difference.index)
        largest = difference[is_reached.astype(bool)].max()
        if source not in ("dense_hessian", "measured") and not pd.isna(largest):
            told.append(f"{source_label(source)} off by at most {percent_text(float(largest))}")
    return [f"Held against the dense Hessian, in points of sparsity: {listed(told)}."] if told else []
