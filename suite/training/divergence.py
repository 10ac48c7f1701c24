"""The losses of an epoch, kept on the device, and what ends a training: one that is not finite, or that exploded.

No step waits for its loss. The losses are looked at every few seconds, at the end of an epoch and before a save, and
tell then at which step it happened.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from suite.errors import TrainingDiverged
from suite.study import Recipe
from suite.training.schedules import learning_rate, num_steps, steps_per_epoch

# A heuristic, and meant to be far from any training that goes on: guessing costs ln(number of classes), and an epoch
# whose mean is ten times that is confidently wrong on nearly every example, after it had been better than guessing.
EXPLODED = 10.0
_BEYOND_MEASURE_NATS = 1e4
_HIGHEST_RATE = 10.0  # above it the learning rate is at fault, whatever it is multiplied with
_TYPICAL_WEIGHT = 0.1  # as layers of some hundred inputs begin


@dataclass
class EpochLosses:
    """Mean loss of each batch of the epoch that runs.

    Attributes:
        recipe: of the training.
        num_examples: of the whole training split.
        start_step: first step of the training; its epoch may begin in the middle.
        values: shape (steps per epoch,), float64, on the device; those of steps to come mean nothing.
    """

    recipe: Recipe
    num_examples: int
    start_step: int
    device: torch.device
    values: Tensor = field(init=False)

    def __post_init__(self) -> None:
        """Make room for the losses of one epoch."""
        self.values = torch.zeros(self._per_epoch, dtype=torch.float64, device=self.device)

    def note(self, step: int, loss: Tensor) -> None:
        """Keep the loss of a step without waiting for it."""
        self.values[step % self._per_epoch] = loss

    def mean(self, step: int, precision: str, earlier: Sequence[float]) -> float:
        """Return the mean over the examples of the epoch so far, waiting for the device.

        Args:
            step: the last one that was done.
            precision: that was computed in.
            earlier: mean losses of the epochs before.

        Raises:
            TrainingDiverged: a loss is not finite.
        """
        epoch, position = divmod(step, self._per_epoch)
        first_epoch, first_position = divmod(self.start_step, self._per_epoch)
        begin = first_position if epoch == first_epoch else 0
        losses = self.values[begin : position + 1].cpu()
        bad = (~losses.isfinite()).nonzero()
        if len(bad):
            index = int(bad[0])
            before = float(losses[index - 1]) if index else (earlier[-1] if earlier else math.nan)
            raise self._not_finite(float(losses[index]), epoch * self._per_epoch + begin + index, before, precision)
        sizes = torch.full_like(losses, self.recipe.batch_size)
        if position == self._per_epoch - 1:
            sizes[-1] = self.num_examples - position * self.recipe.batch_size
        return float(losses @ sizes / sizes.sum())

    def check_exploded(self, step: int, mean_loss: float, earlier: Sequence[float], num_classes: int) -> None:
        """End a training that had learned something, and whose last epoch is worse than guessing by far.

        Raises:
            TrainingDiverged: the mean loss of an epoch is above EXPLODED ln(num_classes), after one below
                ln(num_classes) and a tenth of it.
        """
        guessing = math.log(max(num_classes, 2))
        best = min(earlier, default=math.inf)
        if best < guessing and mean_loss > EXPLODED * max(guessing, best):
            finding = (
                f"The mean loss of epoch {step // self._per_epoch + 1} is {mean_loss:.4g} nats (step {step + 1} of "
                f"{self._total}), after {best:.4g} in an earlier one; guessing costs {guessing:.3g}."
            )
            raise TrainingDiverged(finding, *self._too_fast(step))

    @property
    def _per_epoch(self) -> int:
        return steps_per_epoch(self.recipe, self.num_examples)

    @property
    def _total(self) -> int:
        return num_steps(self.recipe, self.num_examples)

    def _not_finite(self, loss: float, step: int, before: float, precision: str) -> TrainingDiverged:
        where = f"step {step + 1} of {self._total} (epoch {step // self._per_epoch + 1})"
        if step == self.start_step:
            return TrainingDiverged(
                f"The loss is {loss} at {where}, the first one.",
                "Likely: an input, or a weight that it began from, is not finite or far too large.",
                "Look at the data set and at model_options.",
            )
        was = "" if math.isnan(before) else f"; it was {before:.4g} nats before"
        cause, repair = self._too_fast(step, before)
        if precision == "bfloat16" and self._penalised() is None:
            cause = f"{cause.removesuffix('.')}, or bfloat16 is too coarse."
            repair = f'{repair.removesuffix(".")}, or set training.precision = "float32".'
        return TrainingDiverged(f"The loss is {loss} at {where}{was}.", cause, repair)

    def _too_fast(self, step: int, before: float = math.nan) -> tuple[str, str]:
        """Return cause and repair where steps were too long: those of a penalty, or all."""
        if (penalised := self._penalised()) is not None:
            return penalised
        rate = learning_rate(self.recipe, step, self._total)
        lower = f"Lower training.learning_rate (it is {self.recipe.learning_rate:g})"
        # A loss that has grown beyond all measure is not a matter of the first steps.
        may_warm_up = self.recipe.epochs > 1 and not before > _BEYOND_MEASURE_NATS
        if may_warm_up and self.recipe.warmup_epochs == 0 and step < self._per_epoch:
            return (
                f"Likely: a learning rate of {rate:.3g} without a warm-up is too high.",
                f"{lower}, or set training.warmup_epochs = 1.",
            )
        return f"Likely: a learning rate of {rate:.3g} is too high.", f"{lower}."

    def _penalised(self) -> tuple[str, str] | None:
        """Return cause and repair where a penalty alone moves weights past zero in every step; Adam bounds them."""
        recipe, rate = self.recipe, self.recipe.learning_rate
        if recipe.optimiser != "sgd" or rate > _HIGHEST_RATE:
            return None
        if rate * recipe.weight_decay > 1:
            return (
                f"Likely: a weight decay of {recipe.weight_decay:g} is too high for a learning rate of {rate:g}: times "
                "it, it is above 1, and every step carries weights past zero.",
                f"Lower training.weight_decay, below {1 / rate:.3g}.",
            )
        if rate * recipe.l1 > _TYPICAL_WEIGHT:
            return (
                f"Likely: an L1 penalty of {recipe.l1:g} is too high for a learning rate of {rate:g}: every step moves "
                f"each weight by {rate * recipe.l1:.3g}, further than weights are large.",
                f"Lower training.l1, far below {_TYPICAL_WEIGHT / rate:.3g}.",
            )
        return None
