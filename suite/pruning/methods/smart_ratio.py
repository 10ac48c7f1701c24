"""Smart-Ratio random tickets: layer counts by a fixed rule, positions at random, trained from the initial weights.

Source: Su et al. (2020), "Sanity-Checking Pruning Methods: Random Tickets can Win the Jackpot", NeurIPS.
Differs: the declared extension of suite.pruning.allocation. The original fixes every linear layer at 0.3, hence it is
undefined for a network of linear layers; here only the last layer is the classifier. The surplus of full layers goes to
all others, where the original hands it to the next one. Exact counts, a stored mask.
Cost: one training.
"""

import torch

from suite.pruning.allocation import RatioLaw, smart_ratio_counts
from suite.pruning.contract import Search, Ticket
from suite.pruning.masks import keep_top, masked
from suite.seeds import generator
from suite.strict import Settings

LABEL = "Smart-Ratio (extension)"
VERSION = 1
PRUNES = True


class Options(Settings):
    """The law by which layers keep less with depth."""

    law: RatioLaw = "resnet"  # "vgg" falls faster: divided by the square of the layer's number, as the original has it


def find_ticket(search: Search, options: Options) -> Ticket:
    """Draw each layer's share at uniformly random positions."""
    weights = search.problem.prunable
    counts = smart_ratio_counts([weight.numel() for weight in weights.values()], search.num_keep, options.law)
    draw = generator(search.seed, "mask", "smart_ratio")
    masks = {}
    for (name, weight), count in zip(weights.items(), counts, strict=True):
        masks[name] = keep_top(torch.rand(weight.numel(), generator=draw), count).view(weight.shape)
    return Ticket(masks, masked(search.initial, masks), search.recipe)
