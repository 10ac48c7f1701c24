"""What a recipe asks for and would not get: refused before anything runs, or told in one line.

No rule of `Recipe` itself, which also reads what is stored: a record that was made before a rule stays readable.
"""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from suite.errors import UserError

if TYPE_CHECKING:
    from suite.study import Recipe

log = logging.getLogger(__name__)


def check_recipes(task: str, recipes: "Mapping[str, Recipe]") -> None:
    """Refuse micro-batches that are larger than a batch; tell what of a schedule lies behind the training's end.

    A training that somebody shortens by `training.epochs` keeps its milestones: scaling them in silence would be
    another recipe than the one that is written.

    Args:
        task: name of the task.
        recipes: of it, by the table that they come from.

    Raises:
        UserError: micro_batch_size is above what a process has of a batch.
    """
    told: dict[str, list[str]] = {}
    for table, recipe in recipes.items():
        _check_micro_batch(f"task {task}, {table}", recipe)
        for line in _never_reached(recipe):
            told.setdefault(line, []).append(table)
    for line, tables in told.items():
        log.warning("task %s, %s: %s", task, " and ".join(tables), line)


def _check_micro_batch(where: str, recipe: "Recipe") -> None:
    share = -(-recipe.batch_size // recipe.data_parallel)
    if recipe.micro_batch_size is None or recipe.micro_batch_size <= share:
        return
    of = f" shared by data_parallel = {recipe.data_parallel}" if recipe.data_parallel > 1 else ""
    raise UserError(
        f"{where}: micro_batch_size = {recipe.micro_batch_size} with batch_size = {recipe.batch_size}{of}. "
        f"Expected: at most {share} examples; leave micro_batch_size out, or raise batch_size."
    )


def _never_reached(recipe: "Recipe") -> list[str]:
    """Return one line for each part of a schedule that no epoch of the training reaches."""
    lines, epochs = [], recipe.epochs
    if late := [milestone for milestone in recipe.milestones if milestone >= epochs]:
        lines.append(
            f"the rate does not fall at milestones = {late}, for the training ends after epochs = {epochs}; for the "
            'same fractions of a shorter training set milestones too, or schedule = "cosine" and milestones = []'
        )
    if recipe.warmup_epochs >= epochs:
        lines.append(
            f"the rate never rises to learning_rate = {recipe.learning_rate:g}, for warmup_epochs = "
            f"{recipe.warmup_epochs} with epochs = {epochs}; set warmup_epochs too"
        )
    return lines
