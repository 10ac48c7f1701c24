"""How many weights each layer keeps: the smart ratio, water-filling under a total, exact rounding."""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Literal

RatioLaw = Literal["resnet", "vgg"]


def smart_ratio_counts(
    layer_sizes: Sequence[int],
    num_keep: int,
    law: RatioLaw = "resnet",
    *,
    classifier_fraction: Fraction = Fraction(3, 10),
) -> list[int]:
    """Return the kept count of every layer by the smart ratio, extended to nets where all layers are linear.

    The last layer is the classifier: it keeps classifier_fraction of its weights, at most half the budget. Layer l of L
    keeps in proportion to its size times r_l = (L - l + 1)^2 + (L - l + 1), for a VGG r_l / l^2; a full layer's surplus
    goes to the others.

    Args:
        layer_sizes: weights per layer, in the network's order, the classifier last.
        num_keep: the budget, kept exactly.
        law: "resnet" for r_l, "vgg" for r_l / l^2; l counts from 1.
        classifier_fraction: 0.3 in the original.

    Returns:
        Counts that sum to num_keep; at least one per layer when the budget allows it.

    Raises:
        ValueError: fewer weights to keep than layers, or more than there are.

    Source: Su et al. (2020), "Sanity-Checking Pruning Methods: Random Tickets can Win the Jackpot", section 5.
    Differs: water-filling instead of one carry pass, which hands the surplus of full first layers to the next one alone
    and stops at the first that is not full; exact rounding instead of truncation, by which the original keeps up to
    one weight per layer too few; the classifier's cap.
    """
    if not len(layer_sizes) <= num_keep <= sum(layer_sizes):
        raise ValueError(
            f"num_keep={num_keep} cannot be spread. Expected: {len(layer_sizes)} <= num_keep <= {sum(layer_sizes)}."
        )
    *body, classifier = layer_sizes
    if not body:
        return [num_keep]
    wanted = min(round(classifier_fraction * classifier), round(Fraction(num_keep, 2)), num_keep - len(body))
    in_classifier = max(1, wanted, num_keep - sum(body))
    depth = len(layer_sizes)
    ratios = [Fraction((depth - index) ** 2 + (depth - index)) for index in range(len(body))]
    if law == "vgg":
        ratios = [ratio / (index + 1) ** 2 for index, ratio in enumerate(ratios)]
    demands = [ratio * size for ratio, size in zip(ratios, body, strict=True)]
    return [*fill(demands, body, num_keep - in_classifier), in_classifier]


def fill(demands: Sequence[Fraction], capacities: Sequence[int], total: int) -> list[int]:
    """Spread total over layers in proportion to their demands, none above its capacity, each at least one.

    Solves sum_l min(capacity_l, gamma * demand_l) = total for gamma by saturating layers in order of
    capacity / demand, then rounds by largest remainder.

    Args:
        demands: positive, in any unit.
        capacities: most that each can take.
        total: between len(demands) and sum(capacities).
    """
    open_layers = sorted(range(len(demands)), key=lambda layer: Fraction(capacities[layer]) / demands[layer])
    shares = [Fraction(0)] * len(demands)
    left = Fraction(total)
    while open_layers:
        gamma = left / sum(demands[layer] for layer in open_layers)
        first = open_layers[0]
        if gamma * demands[first] < capacities[first]:
            for layer in open_layers:
                shares[layer] = gamma * demands[layer]
            break
        shares[first] = Fraction(capacities[first])
        left -= capacities[first]
        open_layers.pop(0)
    return _at_least_one(_largest_remainder(shares, total))


def _largest_remainder(shares: Sequence[Fraction], total: int) -> list[int]:
    """Round shares that sum to total to integers that sum to total; ties go to the earlier layer."""
    counts = [math.floor(share) for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda layer: (counts[layer] - shares[layer], layer))
    for layer in by_remainder[: total - sum(counts)]:
        counts[layer] += 1
    return counts


def _at_least_one(counts: list[int]) -> list[int]:
    """Give every empty layer one weight of the fullest."""
    for layer, count in enumerate(counts):
        if count == 0:
            counts[counts.index(max(counts))] -= 1
            counts[layer] = 1
    return counts
