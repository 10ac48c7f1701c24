"""Batches of a training by step: order and augmentation are functions of (seed, epoch)."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from suite.seeds import generator
from suite.splits import Examples, Split
from suite.study import Recipe
from suite.training.augmentation import CropFlip, check_augmentation
from suite.training.data_parallel import Ranks
from suite.training.schedules import steps_per_epoch


@dataclass
class Batches:
    """The batches of any step, on the device of the examples.

    Attributes:
        examples: all of them; they are never copied as a whole.
        recipe: batch size and augmentation.
        seed: the order of epoch e is a permutation drawn from generator(seed, "order", e), crops and flips are drawn
            from generator(seed, "augmentation", e).
        ranks: of several processes each has its shard of every batch; None: there is one.
    """

    examples: Examples
    recipe: Recipe
    seed: int
    ranks: Ranks | None = None
    _epoch: int = field(default=-1, init=False)
    _next: int = field(default=-1, init=False)
    _coming: Iterator[Split] = field(init=False)
    _order: Tensor = field(init=False)
    _augmentation: CropFlip | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        """Refuse an augmentation that these examples cannot have."""
        check_augmentation(self.recipe.augmentation, self.examples.input_shape)

    def at(self, step: int) -> Split:
        """Return this process's part of the batch of a step, pixels not yet normalised."""
        epoch, position = divmod(step, self._per_epoch)
        first, size = position * self.recipe.batch_size, self.recipe.batch_size
        if epoch != self._epoch:
            self._draw(epoch)
        index = self._order[first : first + size]
        if self.ranks is not None:
            index = index[self.ranks.shard(len(index))]
        if step != self._next or position == 0:
            self._coming = self._from(first)
        self._next, batch = step + 1, next(self._coming)
        return self._augmentation(batch, index) if self._augmentation else batch

    def num_examples(self, step: int) -> int:
        """Return the size of the whole batch of a step; the last one of an epoch may be smaller."""
        begin = step % self._per_epoch * self.recipe.batch_size
        return min(self.recipe.batch_size, len(self.examples.targets) - begin)

    def _from(self, first: int) -> Iterator[Split]:
        """Yield this process's parts of the batches of an epoch from its example `first` on, read one ahead."""
        order, size = self._order[first:], self.recipe.batch_size
        if self.ranks is None:
            return self.examples.batches(order, size)
        shards = [whole[self.ranks.shard(len(whole))] for whole in torch.split(order, size)]
        return self.examples.batches(torch.cat(shards), [len(shard) for shard in shards])

    @property
    def _per_epoch(self) -> int:
        return steps_per_epoch(self.recipe, len(self.examples.targets))

    def _draw(self, epoch: int) -> None:
        count, device = len(self.examples.targets), self.examples.targets.device
        self._epoch = epoch
        self._order = torch.randperm(count, generator=generator(self.seed, "order", epoch)).to(device)
        if self.recipe.augmentation == "crop_flip":
            self._augmentation = CropFlip.drawn(self.seed, epoch, count, device)
