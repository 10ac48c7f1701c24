"""Learning rates: a closed form of the step, so that any step can be resumed."""

import math
from fractions import Fraction

from suite.study import Recipe


def steps_per_epoch(recipe: Recipe, num_examples: int) -> int:
    """Return the number of batches per epoch; the last one may be smaller, none is dropped."""
    return -(-num_examples // recipe.batch_size)


def num_steps(recipe: Recipe, num_examples: int) -> int:
    """Return the number of gradient steps of a whole training."""
    return recipe.epochs * steps_per_epoch(recipe, num_examples)


def lasting(recipe: Recipe, epochs: int) -> Recipe:
    """Return a recipe of another length whose rate rises and falls at the same fractions of it.

    Warm-up and milestones are scaled by epochs / recipe.epochs and rounded; a warm-up may round to none. A milestone
    within the recipe stays within the new one, at least one epoch from either end; where several coincide one is left,
    so that the rate falls less often. A step schedule that is left without milestones becomes a cosine. As many epochs
    as before give the recipe itself.

    Args:
        recipe: of which everything else stays.
        epochs: at least 1.
    """
    if epochs == recipe.epochs:
        return recipe
    scale = Fraction(epochs, recipe.epochs)
    milestones = _scaled_milestones(recipe, scale, epochs)
    schedule = "cosine" if recipe.schedule == "step" and not milestones else recipe.schedule
    changes = {"schedule": schedule, "milestones": milestones, "warmup_epochs": round(scale * recipe.warmup_epochs)}
    return Recipe.model_validate(recipe.model_dump() | changes | {"epochs": epochs})


def _scaled_milestones(recipe: Recipe, scale: Fraction, epochs: int) -> tuple[int, ...]:
    within = [milestone for milestone in recipe.milestones if milestone < recipe.epochs]
    return tuple(sorted({min(max(1, round(scale * milestone)), epochs - 1) for milestone in within} - {0}))


def learning_rate(recipe: Recipe, step: int, total_steps: int) -> float:
    """Return the learning rate of a step.

    A warm-up multiplies the schedule by (step + 1) / (its number of steps). A cosine goes from learning_rate at step 0
    to 0 at total_steps. A step schedule multiplies by gamma after every milestone. For "cosine_per_step" see below.

    Args:
        recipe: schedule, milestones (epochs), gamma, warmup_epochs, learning_rate.
        step: 0 to total_steps - 1.
        total_steps: of the whole training, also when only a part of it is run.
    """
    rate, per_epoch = recipe.learning_rate, total_steps // recipe.epochs
    warmup_steps = recipe.warmup_epochs * per_epoch
    if recipe.schedule == "cosine_per_step":
        return rate * _cosine_per_step(step, recipe.epochs, warmup_steps)
    if recipe.schedule == "cosine":
        rate *= 0.5 * (1 + math.cos(math.pi * step / total_steps))
    elif recipe.schedule == "step":
        rate *= recipe.gamma ** sum(step >= milestone * per_epoch for milestone in recipe.milestones)
    if step < warmup_steps:
        rate *= (step + 1) / warmup_steps
    return rate


def _cosine_per_step(step: int, length: int, warmup_steps: int) -> float:
    """Return the learning rate of the original LOMP, as a fraction of the declared one.

    The original makes a CosineAnnealingLR that ends after `epochs` calls, and calls it after every step, behind its
    warm-up. So the rate swings between 0 and the declared one with a period of 2 `epochs` steps. That scheduler
    multiplies the rate it finds by the ratio of two values of the cosine, and what it finds in the warm-up is the
    warm-up's rate: there the rate spikes, fourfold just after each zero. Behind the warm-up the ratios telescope; the
    first zero makes the cosine exact.

    Args:
        step: from 0. The original's warm-up begins at a rate of 0.
        length: steps from top to zero: the number of epochs.
        warmup_steps: 0 for none.

    Source: Zhang et al. (2024), code; torch.optim.lr_scheduler.CosineAnnealingLR, recursive form.
    """
    if step <= warmup_steps and warmup_steps:
        return _in_warmup(step, length, warmup_steps)
    phase = step % (2 * length)
    last_zero = step - (phase - length) % (2 * length)  # the last step, this one at the most, whose rate is zero
    if last_zero >= warmup_steps or not warmup_steps:
        return _cosine(step, length)
    return _in_warmup(warmup_steps, length, warmup_steps) * _cosine(step, length) / _cosine(warmup_steps, length)


def _in_warmup(step: int, length: int, warmup_steps: int) -> float:
    risen = step / warmup_steps
    if step == 0:
        return 0.0
    if (before := _cosine(step - 1, length)) == 0:  # no ratio to a zero: the scheduler adds the step of the cosine
        return risen + _cosine(step, length)
    return risen * _cosine(step, length) / before


def _cosine(step: int, length: int) -> float:
    return 0.5 * (1 + math.cos(math.pi * (step % (2 * length)) / length))
