"""LOMP: L1-regularised one-shot magnitude pruning; reported as it is and with fine-tuning.

Train with an L1 penalty, then keep the num_keep weights of largest |w| over all layers together.

Source: Zhang, Zhang, Sun, Liu (2024), "How Sparse Can We Prune A Deep Network: A Fundamental Limit Perspective",
NeurIPS. The original never fine-tunes; the second row does, so that LOMP stands beside methods that retrain.
Differs: exact counts where the original's strict threshold prunes all ties and its "0 %" net lacks one weight; the
L1 penalty leaves biases alone (training l1_scope = "all" brings it back); schedules are counted in steps.
Cost: one dense training; with fine-tuning, fine_tune_epochs more.
"""

from typing import Annotated

from pydantic import Field

from suite.pruning.contract import PlannedTraining, Search, Ticket, Variant
from suite.pruning.masks import keep_top_globally, masked
from suite.strict import Settings
from suite.study import Recipe
from suite.training.schedules import lasting

LABEL = "LOMP"
VERSION = 1
PRUNES = True


class Options(Settings):
    """Whether to train on after pruning, and for how long; None trains as long as the task's plain recipe.

    Another length scales the schedule of that recipe, see suite.training.schedules.lasting.
    """

    fine_tune: bool | None = None  # None: both, as two rows
    fine_tune_epochs: Annotated[int, Field(ge=1)] | None = None


def smoke(options: Options) -> Options:
    """Return options that train on for one epoch."""
    return options if options.fine_tune is False else options.model_copy(update={"fine_tune_epochs": 1})


def variants(options: Options) -> list[Variant]:
    """Return the row without fine-tuning, the row with it, or both."""
    rows = [
        Variant("lomp", LABEL, options.model_copy(update={"fine_tune": False, "fine_tune_epochs": None})),
        Variant("lomp_fine_tuned", f"{LABEL} + fine-tuning", options.model_copy(update={"fine_tune": True})),
    ]
    return [row for row in rows if options.fine_tune in (None, row.row == "lomp_fine_tuned")]


def trainings(recipe: Recipe, fine_tune_recipe: Recipe, options: Options) -> list[PlannedTraining]:
    """Return the fine-tuning, if there is one."""
    del recipe
    return [PlannedTraining(_fine_tuning(fine_tune_recipe, options))] if options.fine_tune else []


def find_ticket(search: Search, options: Options) -> Ticket:
    """Keep the largest magnitudes of the trained network and go on from there."""
    magnitudes = {name: search.dense[name].abs() for name in search.problem.prunable}
    masks = keep_top_globally(magnitudes, search.num_keep)
    recipe = _fine_tuning(search.fine_tune_recipe, options) if options.fine_tune else None
    return Ticket(masks=masks, start=masked(search.dense, masks), recipe=recipe, uses_dense=True)


def _fine_tuning(recipe: Recipe, options: Options) -> Recipe:
    return lasting(recipe, options.fine_tune_epochs or recipe.epochs)
