"""Random: keep num_keep weights drawn uniformly over all layers, train from the initial weights. The floor.

Any method that looks at weights or data should beat it. (The module is called as studies call it; the standard
library's random is never imported from here.)

Cost: one training.
"""

import torch

from suite.pruning.contract import Search, Ticket
from suite.pruning.masks import keep_top_globally, masked
from suite.seeds import generator
from suite.strict import Settings

LABEL = "Random"
VERSION = 1
PRUNES = True


class Options(Settings):
    """None."""


def find_ticket(search: Search, options: Options) -> Ticket:
    """Score every weight with an independent uniform number."""
    del options
    draw = generator(search.seed, "mask", "random")
    scores = {name: torch.rand(weight.shape, generator=draw) for name, weight in search.problem.prunable.items()}
    masks = keep_top_globally(scores, search.num_keep)
    return Ticket(masks, masked(search.initial, masks), search.recipe)
