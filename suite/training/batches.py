"""Batches of a training by step: order and augmentation are functions of (seed, epoch)."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from suite.seeds import generator
from suite.splits import Split
from suite.study import Recipe
from suite.training.augmentation import CropFlip, check_augmentation
from suite.training.schedules import steps_per_epoch


@dataclass
class Batches:
    """The batches of any step, on the device of the examples.

    Attributes:
        examples: all of them; they are never copied as a whole.
        recipe: batch size and augmentation.
        seed: the order of epoch e is a permutation drawn from generator(seed, "order", e), crops and flips are drawn
            from generator(seed, "augmentation", e).
    """

    examples: Split
    recipe: Recipe
    seed: int
    _epoch: int = field(default=-1, init=False)
    _order: Tensor = field(init=False)
    _augmentation: CropFlip | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        """Refuse an augmentation that these examples cannot have."""
        check_augmentation(self.recipe.augmentation, self.examples.inputs.shape[1:])

    def at(self, step: int) -> Split:
        """Return the batch of a step, pixels not yet normalised; the last one of an epoch may be smaller."""
        epoch, position = divmod(step, steps_per_epoch(self.recipe, len(self.examples.targets)))
        if epoch != self._epoch:
            self._draw(epoch)
        index = self._order[position * self.recipe.batch_size : (position + 1) * self.recipe.batch_size]
        batch = self.examples.part(index)
        return self._augmentation(batch, index) if self._augmentation else batch

    def _draw(self, epoch: int) -> None:
        count, device = len(self.examples.targets), self.examples.targets.device
        self._epoch = epoch
        self._order = torch.randperm(count, generator=generator(self.seed, "order", epoch)).to(device)
        if self.recipe.augmentation == "crop_flip":
            self._augmentation = CropFlip.drawn(self.seed, epoch, count, device)
