"""IMP: iterative magnitude pruning with rewinding.

Each round removes a fraction of the weights that are left (20 %) by global magnitude of the trained network, sets the
survivors back to their values after rewind_step steps of the dense training, and trains on from that step of the
schedule. A round is a cell of its own, so that all sparsities of a study share their rounds.

Source: Frankle, Dziugaite, Roy, Carbin (2020), "Linear Mode Connectivity and the Lottery Ticket Hypothesis", ICML.
Differs: exact counts (the originals remove one weight too many per round); the last round removes just what is left
to remove; every round goes on from rewind_step of the schedule, where Rare Gems' code restarts it at epoch 0; masked
gradients.
Cost: a training of all but rewind_step steps per round: 11 rounds to sparsity 0.9, 18 to 0.98.
"""

from fractions import Fraction
from typing import Annotated

from pydantic import Field

from suite.pruning.contract import PlannedTraining, Search, Ticket
from suite.pruning.masks import keep_top_globally, masked
from suite.strict import Settings
from suite.study import Recipe

LABEL = "IMP"
VERSION = 1
PRUNES = True


class Options(Settings):
    """fraction_per_round: of the weights that are left. rewind_step: 0 rewinds to the initial weights."""

    fraction_per_round: Annotated[float, Field(gt=0, lt=1)] = 0.2
    rewind_step: Annotated[int, Field(ge=0)] = 100


def smoke(options: Options) -> Options:
    """Return options of few rounds that rewind within a training of two steps."""
    return options.model_copy(update={"fraction_per_round": 0.9, "rewind_step": min(options.rewind_step, 1)})


def rewind_step(options: Options) -> int | None:
    """Return the step of the dense training to which survivors are rewound, None for the initial weights."""
    return options.rewind_step or None


def previous_num_kept(options: Options, num_prunable: int, num_keep: int) -> int | None:
    """Return how many weights the round before keeps: the smallest level above num_keep, None for the first round."""
    level, previous = num_prunable, None
    fraction = Fraction(repr(options.fraction_per_round))
    while True:
        level -= max(1, -(-level * fraction.numerator // fraction.denominator))
        if level <= num_keep:
            return previous
        previous = level


def trainings(recipe: Recipe, fine_tune_recipe: Recipe, options: Options) -> list[PlannedTraining]:
    """Return the one training of a round."""
    del fine_tune_recipe
    return [PlannedTraining(recipe, start_step=options.rewind_step)]


def find_ticket(search: Search, options: Options) -> Ticket:
    """Prune the previous round's trained network and rewind."""
    trained, masks = search.previous or (search.dense, None)
    magnitudes = {name: trained[name].abs() for name in search.problem.prunable}
    masks = keep_top_globally(magnitudes, search.num_keep, within=masks)
    start = search.rewind if search.rewind is not None else search.initial
    return Ticket(masks, masked(start, masks), search.recipe, start_step=options.rewind_step, uses_dense=True)
