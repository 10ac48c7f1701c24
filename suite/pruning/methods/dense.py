"""Dense: nothing is pruned. The reference row, trained with the task's plain recipe.

Cost: one training, shared with every method whose recipe is the same.
"""

from suite.pruning.contract import PlannedTraining, Search, Ticket
from suite.pruning.masks import ones_like
from suite.strict import Settings
from suite.study import Recipe

LABEL = "Dense"
VERSION = 1
PRUNES = False


class Options(Settings):
    """None."""


def trainings(recipe: Recipe, fine_tune_recipe: Recipe, options: Options) -> list[PlannedTraining]:
    """Return none: the dense cell has trained it."""
    del recipe, fine_tune_recipe, options
    return []


def find_ticket(search: Search, options: Options) -> Ticket:
    """Keep every weight of the trained network."""
    del options
    return Ticket(masks=ones_like(search.problem.prunable), start=search.dense, recipe=None, uses_dense=True)
