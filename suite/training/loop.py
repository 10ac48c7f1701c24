"""The one training loop: any recipe, masks kept exactly, the same bits whether it ran through or went on."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from suite.memory_order import channels_last
from suite.problem import evaluate
from suite.pruning.masks import Masks
from suite.seeds import generator
from suite.splits import Splits
from suite.study import Recipe
from suite.training.arithmetic import Arithmetic
from suite.training.batches import Batches
from suite.training.checkpoint import Stage, State
from suite.training.data_parallel import Ranks, check_ranks
from suite.training.divergence import EpochLosses
from suite.training.going_on import Changing, History
from suite.training.hooks import Hooks
from suite.training.pace import GOES_ON, Pace
from suite.training.schedules import learning_rate, num_steps, steps_per_epoch
from suite.training.stepper import Stepper

__all__ = ["VERSION", "History", "Hooks", "train"]
VERSION = 3  # raise when the same recipe trains to other weights, or its epochs are evaluated to other numbers

Progress = Callable[[float, str], None]


def train(
    model: nn.Module,
    splits: Splits,
    recipe: Recipe,
    seed: int,
    *,
    masks: Masks | None = None,
    start_step: int = 0,
    stop_step: int | None = None,
    hooks: Hooks | None = None,
    progress: Progress | None = None,
    stage: Stage | None = None,
    ranks: Ranks | None = None,
) -> History:
    """Train a network in place, from the first step or from the last state that was saved: the same bits either way.

    Args:
        model: its parameters with requires_grad are trained.
        splits: "train", and for the curves "validation" and "test" where they are there; on the model's device.
            Curves are evaluated in the training's own precision, as its train_loss is.
        recipe: optimiser, schedule, epochs.
        seed: order and augmentation of epoch e are drawn from generators of (seed, e), see Batches; what layers draw on
            the way, such as dropout, from a generator of the seed as well.
        masks: pruned weights are held at exactly zero: gradients are masked before, weights after each step.
        start_step: where the schedule and the order begin; what the optimiser keeps always begins at zero.
        stop_step: where to stop, by default the end of the schedule.
        hooks: see Hooks.
        progress: called every two seconds and after each epoch with a fraction in [0, 1] and a text.
        stage: where the training is saved on the way; None: nowhere.
        ranks: the processes that call this at the same time with the same arguments, and share each batch; as many as
            recipe.data_parallel says. None: this one alone.

    Returns:
        The history.

    Raises:
        TrainingDiverged: the loss left the finite numbers or exploded, see suite.training.divergence.
        UserError: the recipe asks for what these inputs or this device cannot do.
        ValueError: start_step is not below the schedule's number of steps, or the recipe wants other ranks.
        PeerLost: another one of the processes has ended, or is silent.
        Interrupted: the cell was told to stop, and the training is saved.

    Cost: stop_step - start_step gradients of a batch, one evaluation of validation and test per epoch, and 2 % of the
        time for saving.
    """
    examples, total = splits["train"], num_steps(recipe, len(splits["train"].targets))
    stop = total if stop_step is None else min(stop_step, total)
    if not 0 <= start_step < total:
        raise ValueError(f"start_step={start_step} is out of range. Expected: 0 <= start_step < {total}.")
    check_ranks(recipe, ranks)
    hooks, device = hooks or Hooks(), examples.targets.device
    arithmetic, batches = Arithmetic.of(recipe, device), Batches(examples, recipe, seed, ranks)
    with _random_numbers_of(seed, device), arithmetic.applied(), channels_last(model) as images_last:
        stepper = Stepper(model, recipe, masks, hooks, arithmetic, images_last=images_last, ranks=ranks)
        losses = EpochLosses(recipe, len(examples.targets), start_step, device)
        changing = Changing(model, stepper, hooks, losses)
        run = _Run(splits, recipe, arithmetic, start_step, stop, changing, progress, ranks)
        begin = changing.restored(stage, start_step, ranks)
        run.begin_at(begin)
        model.train()
        for step in range(begin, stop):
            if ranks is not None:
                ranks.seed_layers(seed, step)
            batch, num_examples = batches.at(step), batches.num_examples(step)
            losses.note(step, stepper.step(batch, learning_rate(recipe, step, total), num_examples))
            run.count(num_examples)
            if run.is_end_of_epoch(step) or step == stop - 1:
                run.end_epoch(step)
            elif run.is_word_due:
                run.tell(step)
            if stage:
                stage.after(step + 1, run.state)
    return run.changing.history


@contextmanager
def _random_numbers_of(seed: int, device: torch.device) -> Iterator[None]:
    """Let layers that draw, such as dropout, draw what depends on the seed alone; the caller's generators stay."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(generator(seed, "layers").initial_seed())
        yield


@dataclass
class _Run:
    """A training on its way: its epochs, and what is told of them."""

    splits: Splits
    recipe: Recipe
    arithmetic: Arithmetic
    start: int
    stop: int
    changing: Changing
    progress: Progress | None
    ranks: Ranks | None

    def begin_at(self, step: int) -> None:
        """Begin to count, and tell where an earlier attempt has come to."""
        self.pace = Pace(step, self.stop)
        if step > self.start and self.progress:
            self.progress(self._fraction(step), f"{GOES_ON} {step}")

    def count(self, num_examples: int) -> None:
        """Add one step to the sums."""
        self.changing.history.num_steps += 1
        self.changing.history.num_examples += num_examples
        self.pace.count(num_examples)

    def is_end_of_epoch(self, step: int) -> bool:
        """Return whether a step is the last one of its epoch."""
        return (step + 1) % self._per_epoch == 0

    @property
    def is_word_due(self) -> bool:
        """Return whether it is time to look at the losses; of several processes the first one looks for all."""
        return self.pace.is_due and (self.ranks is None or self.ranks.is_first)

    def end_epoch(self, step: int) -> None:
        """Judge and record an epoch, whole or cut off by the end; its last step is done."""
        epoch, history = step // self._per_epoch, self.changing.history
        if self.ranks is not None:
            self.ranks.align(self.changing.model)
        mean_loss = self._mean_loss(step)
        if self.is_end_of_epoch(step):
            num_classes = int(self.splits["train"].targets.max()) + 1
            self.changing.losses.check_exploded(step, mean_loss, self._earlier, num_classes)
            self.changing.hooks.after_epoch(epoch + 1)
        self.changing.stepper.assert_masked()
        text = self.pace.text(step + 1)
        rate = learning_rate(self.recipe, step, num_steps(self.recipe, len(self.splits["train"].targets)))
        values = {"epoch": epoch + 1.0, "train_loss": mean_loss, "learning_rate": rate} | self._evaluated()
        for name, value in values.items():
            history.curves.setdefault(name, []).append(value)
        self._tell(step, mean_loss, text)

    def tell(self, step: int) -> None:
        """Look at the losses after a step, and tell."""
        self._tell(step, self._mean_loss(step), self.pace.text(step + 1))

    def state(self, step: int) -> State:
        """Return what is to be saved before a step, if it is worth it."""
        if step % self._per_epoch:
            self._mean_loss(step - 1)
        return self.changing.state(step)

    def _tell(self, step: int, mean_loss: float, speed: str) -> None:
        if self.progress:
            epoch = step // self._per_epoch + 1
            accuracy = self.changing.history.curves.get("validation_accuracy", [math.nan])[-1]
            words = [f"epoch {epoch} of {self.recipe.epochs}", f"loss {mean_loss:.4f}"]
            words += [] if math.isnan(accuracy) else [f"validation accuracy {accuracy:.1%}"]
            self.progress(self._fraction(step + 1), ", ".join([*words, speed] if speed else words))
        self.pace.restart()

    def _mean_loss(self, step: int) -> float:
        return self.changing.losses.mean(step, self.arithmetic.precision, self._earlier)

    def _fraction(self, next_step: int) -> float:
        return (next_step - self.start) / (self.stop - self.start)

    def _evaluated(self) -> dict[str, float]:
        values: dict[str, float] = {}
        for name in ("validation", "test"):
            if name in self.splits:
                model, batch_size = self.changing.model, self.recipe.micro_batch_size
                found = evaluate(model, self.splits[name], batch_size=batch_size, operands=self.arithmetic.operands)
                values |= {f"{name}_loss": found.loss, f"{name}_accuracy": found.accuracy}
        return values

    @property
    def _earlier(self) -> list[float]:
        return self.changing.history.curves.get("train_loss", [])

    @property
    def _per_epoch(self) -> int:
        return steps_per_epoch(self.recipe, len(self.splits["train"].targets))
