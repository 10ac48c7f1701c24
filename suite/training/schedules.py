"""Learning rates: a closed form of the step, so that any step can be resumed."""

import math

from suite.study import Recipe


def steps_per_epoch(recipe: Recipe, num_examples: int) -> int:
    """Return the number of batches per epoch; the last one may be smaller, none is dropped."""
    return -(-num_examples // recipe.batch_size)


def num_steps(recipe: Recipe, num_examples: int) -> int:
    """Return the number of gradient steps of a whole training."""
    return recipe.epochs * steps_per_epoch(recipe, num_examples)


def learning_rate(recipe: Recipe, step: int, total_steps: int) -> float:
    """Return the learning rate of a step.

    A warm-up multiplies the schedule by (step + 1) / (its number of steps). A cosine goes from learning_rate at step 0
    to 0 at total_steps. A step schedule multiplies by gamma after every milestone.

    Args:
        recipe: schedule, milestones (epochs), gamma, warmup_epochs, learning_rate.
        step: 0 to total_steps - 1.
        total_steps: of the whole training, also when only a part of it is run.
    """
    rate, per_epoch = recipe.learning_rate, total_steps // recipe.epochs
    if recipe.schedule == "cosine":
        rate *= 0.5 * (1 + math.cos(math.pi * step / total_steps))
    elif recipe.schedule == "step":
        rate *= recipe.gamma ** sum(step >= milestone * per_epoch for milestone in recipe.milestones)
    warmup_steps = recipe.warmup_epochs * per_epoch
    if step < warmup_steps:
        rate *= (step + 1) / warmup_steps
    return rate
