"""The one training loop: SGD with momentum, L1 or L2, masks kept exactly, order a function of (seed, epoch)."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from suite.network import prunable_weights
from suite.problem import evaluate
from suite.pruning.masks import Masks
from suite.seeds import generator
from suite.splits import Splits
from suite.study import Recipe
from suite.training.checkpoint import Stage, State
from suite.training.schedules import learning_rate, num_steps, steps_per_epoch

VERSION = 1  # raise when the same recipe trains to other weights


def _nothing() -> None:
    pass


def _nothing_after_epoch(epoch: int) -> None:
    del epoch


def _nothing_to_restore(tensors: Mapping[str, Tensor]) -> None:
    del tensors


@dataclass(frozen=True)
class Hooks:
    """Where a method may step in.

    Attributes:
        penalty: added to the loss of each batch.
        after_step: called after each optimiser step.
        after_epoch: called with the number of finished epochs.
        state: returns what the method itself changes on the way, beside the model; it is saved with the training.
        restore: sets it again, from the CPU, when a training goes on.
    """

    penalty: Callable[[], Tensor] | None = None
    after_step: Callable[[], None] = _nothing
    after_epoch: Callable[[int], None] = _nothing_after_epoch
    state: Callable[[], Mapping[str, Tensor]] = dict
    restore: Callable[[Mapping[str, Tensor]], None] = _nothing_to_restore


@dataclass
class History:
    """What happened in a training.

    Attributes:
        status: "ok", or "nonfinite" when the loss left the finite numbers.
        num_steps: gradient steps done.
        num_examples: examples that went forward and backward.
        curves: per finished epoch: epoch, train_loss (mean over its batches, nats), learning_rate (of its last step),
            validation_loss, validation_accuracy, test_loss, test_accuracy.
    """

    status: str = "ok"
    num_steps: int = 0
    num_examples: int = 0
    curves: dict[str, list[float]] = field(default_factory=dict)


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
    progress: Callable[[float, str], None] | None = None,
    stage: Stage | None = None,
) -> History:
    """Train a network in place, from the first step or from the last state that was saved: the same bits either way.

    Args:
        model: its parameters with requires_grad are trained.
        splits: "train", and for the curves "validation" and "test" where they are there; on the model's device.
        recipe: optimiser, schedule, epochs.
        seed: the data order of epoch e is a permutation drawn from generator(seed, "order", e); what layers draw on the
            way, such as dropout, from a generator of the seed as well.
        masks: pruned weights are held at exactly zero: gradients are masked before, weights after each step.
        start_step: where the schedule and the order begin; momentum always begins at zero.
        stop_step: where to stop, by default the end of the schedule.
        hooks: see Hooks.
        progress: called after each epoch.
        stage: where the training is saved on the way; None: nowhere.

    Returns:
        The history. A loss that is not finite ends the training with status "nonfinite".

    Raises:
        ValueError: start_step is not below the schedule's number of steps.
        Interrupted: the cell was told to stop, and the training is saved.

    Cost: stop_step - start_step gradients of a batch, one evaluation of validation and test per epoch, and 2 % of the
        time for saving.
    """
    examples, num_examples = splits["train"], len(splits["train"].targets)
    hooks, per_epoch = hooks or Hooks(), steps_per_epoch(recipe, num_examples)
    total = num_steps(recipe, num_examples)
    stop = total if stop_step is None else min(stop_step, total)
    if not 0 <= start_step < total:
        raise ValueError(f"start_step={start_step} is out of range. Expected: 0 <= start_step < {total}.")
    device = examples.targets.device
    stepper = _Stepper(model, recipe, masks, hooks)
    run = _Run(model, stepper.optimiser, hooks, torch.zeros((), device=device))
    with _random_numbers_of(seed, device):
        begin = run.restored(stage, start_step)
        if begin > start_step and progress:
            progress((begin - start_step) / (stop - start_step), f"goes on at step {begin}")
        order = torch.empty(0, dtype=torch.long)
        model.train()
        for step in range(begin, stop):
            epoch, position = divmod(step, per_epoch)
            if position == 0 or not len(order):
                order = torch.randperm(num_examples, generator=generator(seed, "order", epoch)).to(device)
            batch = examples.part(order[position * recipe.batch_size : (position + 1) * recipe.batch_size])
            loss = stepper.step(batch.network_inputs(), batch.targets, learning_rate(recipe, step, total))
            run.count(loss, len(batch.targets))
            if position == per_epoch - 1 or step == stop - 1:
                mean_loss = float(run.epoch_loss) / run.epoch_examples
                if not math.isfinite(mean_loss):
                    run.history.status = "nonfinite"
                    break
                if position == per_epoch - 1:
                    hooks.after_epoch(epoch + 1)
                stepper.assert_masked()
                _record_epoch(run.history, model, splits, epoch + 1, mean_loss, learning_rate(recipe, step, total))
                run.end_epoch()
                if progress:
                    progress((step + 1 - start_step) / (stop - start_step), f"epoch {epoch + 1}, loss {mean_loss:.4f}")
            if stage:
                stage.after(step + 1, run.state)
    return run.history


@contextmanager
def _random_numbers_of(seed: int, device: torch.device) -> Iterator[None]:
    """Let layers that draw, such as dropout, draw what depends on the seed alone; the caller's generators stay."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(generator(seed, "layers").initial_seed())
        yield


@dataclass
class _Run:
    """Whatever changes from step to step. Rate and order are functions of the step, which stands for them.

    Attributes:
        epoch_loss: shape (), sum over the examples of the epoch so far.
        epoch_examples: their number.
    """

    model: nn.Module
    optimiser: torch.optim.SGD
    hooks: Hooks
    epoch_loss: Tensor
    epoch_examples: int = 0
    history: History = field(default_factory=History)

    def count(self, loss: Tensor, num_examples: int) -> None:
        """Add one step to the sums."""
        self.epoch_loss += loss * num_examples
        self.epoch_examples += num_examples
        self.history.num_steps += 1
        self.history.num_examples += num_examples

    def end_epoch(self) -> None:
        """Begin the sums of the next epoch."""
        self.epoch_loss, self.epoch_examples = torch.zeros_like(self.epoch_loss), 0

    def state(self, step: int) -> State:
        """Return all of it, not copied, before the given step."""
        tensors = {"epoch_loss": self.epoch_loss, "generator/cpu": torch.get_rng_state()}
        if self.epoch_loss.is_cuda:  # layers that draw, such as dropout, draw from the generators of torch itself
            tensors["generator/cuda"] = torch.cuda.get_rng_state(self.epoch_loss.device)
        tensors |= {f"model/{name}": value for name, value in self._values().items()}
        for index, parameter in enumerate(self._trained()):
            momentum = self.optimiser.state[parameter].get("momentum_buffer")
            if momentum is not None:
                tensors[f"momentum/{index}"] = momentum
        tensors |= {f"hooks/{name}": value for name, value in self.hooks.state().items()}
        return State(step, tensors, {"epoch_examples": self.epoch_examples, "history": asdict(self.history)})

    @torch.no_grad()
    def restored(self, stage: Stage | None, start_step: int) -> int:
        """Set everything to the latest state that was saved, if there is one; return the next step."""
        found = stage.latest() if stage else None
        if found is None:
            return start_step
        for name, value in self._values().items():
            value.copy_(found.tensors[f"model/{name}"])
        for index, parameter in enumerate(self._trained()):
            momentum = found.tensors.get(f"momentum/{index}")
            if momentum is not None:
                self.optimiser.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(momentum)
        self.epoch_loss = found.tensors["epoch_loss"].to(self.epoch_loss.device)
        self.epoch_examples, self.history = found.facts["epoch_examples"], History(**found.facts["history"])
        torch.set_rng_state(found.tensors["generator/cpu"])
        if self.epoch_loss.is_cuda:
            torch.cuda.set_rng_state(found.tensors["generator/cuda"], self.epoch_loss.device)
        self.hooks.restore(_below("hooks/", found.tensors))
        return found.step

    def _values(self) -> dict[str, Tensor]:
        """Return parameters and buffers, also those that a state dict leaves out."""
        return {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}

    def _trained(self) -> list[Tensor]:
        parameters: list[Tensor] = self.optimiser.param_groups[0]["params"]
        return parameters


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


class _Stepper:
    """One gradient step: loss, penalties, masked gradients, SGD, masked weights."""

    def __init__(self, model: nn.Module, recipe: Recipe, masks: Masks | None, hooks: Hooks) -> None:
        self.decayed: list[Tensor]
        self.pruned: list[Tensor]
        self.multipliers: Any
        self.model, self.l1, self.hooks = model, recipe.l1, hooks
        trained: list[Tensor] = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimiser = torch.optim.SGD(
            trained, lr=recipe.learning_rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay
        )
        self.decayed = trained
        if recipe.l1 and recipe.l1_scope == "prunable":
            self.decayed = [*prunable_weights(model).values()]
        parameters = dict(model.named_parameters())
        self.pruned = [parameters[name] for name in masks or {}]
        self.multipliers = [
            mask.to(p.device, p.dtype) for mask, p in zip((masks or {}).values(), self.pruned, strict=True)
        ]

    def step(self, inputs: Tensor, targets: Tensor, rate: float) -> Tensor:
        """Do one step and return the batch's mean cross-entropy."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(self.model(inputs), targets)
        (loss + self.hooks.penalty() if self.hooks.penalty else loss).backward()  # type: ignore[no-untyped-call]
        if self.l1:
            torch._foreach_add_(_gradients(self.decayed), torch._foreach_sign(self.decayed), alpha=self.l1)
        if self.pruned:
            torch._foreach_mul_(_gradients(self.pruned), self.multipliers)
        self.optimiser.step()
        if self.pruned:
            with torch.no_grad():
                torch._foreach_mul_(self.pruned, self.multipliers)
        self.hooks.after_step()
        return loss.detach()

    def assert_masked(self) -> None:
        """Stop at once if a pruned weight has come back: the mask is the method's result."""
        for weight, multiplier in zip(self.pruned, self.multipliers, strict=True):
            assert not torch.any(weight.detach()[multiplier == 0]), "a pruned weight is not zero"


def _gradients(weights: list[Tensor]) -> list[Tensor]:
    """Return the gradients of weights that the loss reaches; one that it does not reach has none to change."""
    for weight in weights:
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
    return [weight.grad for weight in weights if weight.grad is not None]


def _record_epoch(
    history: History, model: nn.Module, splits: Splits, epoch: int, train_loss: float, rate: float
) -> None:
    """Append one point to every curve."""
    values = {"epoch": float(epoch), "train_loss": train_loss, "learning_rate": rate}
    for name in ("validation", "test"):
        if name in splits:
            evaluation = evaluate(model, *splits[name])
            values[f"{name}_loss"], values[f"{name}_accuracy"] = evaluation.loss, evaluation.accuracy
    for name, value in values.items():
        history.curves.setdefault(name, []).append(value)
