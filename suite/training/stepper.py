"""One gradient step: loss, penalties, masked gradients, SGD or Adam, masked weights."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from suite.network import prunable_weights
from suite.pruning.masks import Masks
from suite.splits import Split
from suite.study import Recipe
from suite.training.arithmetic import Arithmetic
from suite.training.data_parallel import Ranks
from suite.training.hooks import Hooks

FUSED = {torch.float32, torch.float64}  # in which torch's fused optimisers compute the same bits every time


class Stepper:
    """Steps a network with a recipe.

    Args:
        model: its parameters with requires_grad are trained.
        recipe: optimiser, penalties, batch and micro-batch size.
        masks: pruned weights are held at exactly zero.
        hooks: penalty and after_step are called.
        arithmetic: of the forward and backward pass.
        images_last: images are handed over with the channels of a pixel side by side.
        ranks: that share each batch; None: this process has it all.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        masks: Masks | None,
        hooks: Hooks,
        arithmetic: Arithmetic,
        *,
        images_last: bool,
        ranks: Ranks | None = None,
    ) -> None:
        self.decayed: list[Tensor]
        self.pruned: list[Tensor]
        self.multipliers: list[Tensor]
        self.l1, self.hooks, self.images_last, self.ranks = recipe.l1, hooks, images_last, ranks
        shard = range(recipe.batch_size)[ranks.shard(recipe.batch_size)] if ranks else range(recipe.batch_size)
        self.micro_batch_size = min(recipe.micro_batch_size or len(shard), len(shard))
        forward = arithmetic.forward(model, self.micro_batch_size)
        self.forward = ranks.shared(model, forward) if ranks else forward
        self.trained: list[Tensor] = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimiser = _optimiser(self.trained, recipe)
        self.decayed = self.trained
        if recipe.l1 and recipe.l1_scope == "prunable":
            self.decayed = [*prunable_weights(model).values()]
        parameters = dict(model.named_parameters())
        self.pruned = [parameters[name] for name in masks or {}]
        # in the memory order of the weights, as whatever is computed for all of them at once needs it
        self.multipliers = [
            torch.empty_like(p, requires_grad=False).copy_(mask)
            for mask, p in zip((masks or {}).values(), self.pruned, strict=True)
        ]

    def step(self, batch: Split, rate: float, num_examples: int | None = None) -> Tensor:
        """Do one step and return the batch's mean cross-entropy, on the device.

        Args:
            batch: this process's part of it.
            rate: learning rate.
            num_examples: of the whole batch; None: this is all of it.
        """
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        loss = self._gradients(batch, num_examples or len(batch.targets))
        self._move()
        self.hooks.after_step()
        return loss

    @torch.no_grad()
    def _move(self) -> None:
        """Move the weights by the gradients that they have; neither is to remember how it came about."""
        if self.l1:
            torch._foreach_add_(_gradients(self.decayed), torch._foreach_sign(self.decayed), alpha=self.l1)
        if self.pruned:
            torch._foreach_mul_(_gradients(self.pruned), self.multipliers)
        if self.optimiser.defaults["fused"]:
            _align_gradients(self.trained)
        self.optimiser.step()
        if self.pruned:
            torch._foreach_mul_(self.pruned, self.multipliers)

    def assert_masked(self) -> None:
        """Stop at once if a pruned weight has come back: the mask is the method's result."""
        for weight, multiplier in zip(self.pruned, self.multipliers, strict=True):
            assert not torch.any(weight.detach()[multiplier == 0]), "a pruned weight is not zero"

    def state(self) -> dict[str, Tensor]:
        """Return whatever the optimiser keeps, not copied, as INDEX/NAME: momentum_buffer, exp_avg, step, ..."""
        kept = [self.optimiser.state.get(parameter, {}) for parameter in self.trained]
        return {
            f"{index}/{name}": value
            for index, values in enumerate(kept)
            for name, value in values.items()
            if isinstance(value, Tensor)
        }

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Set what the optimiser keeps, from the CPU."""
        for key, value in tensors.items():
            index, _, name = key.partition("/")
            parameter = self.trained[int(index)]
            self.optimiser.state[parameter][name] = self._placed(value, parameter, name)

    def _placed(self, value: Tensor, parameter: Tensor, name: str) -> Tensor:
        if name == "step":  # a count; only fused optimisers keep it on the device
            return value.to(parameter.device) if self.optimiser.defaults["fused"] else value
        return torch.empty_like(parameter, dtype=value.dtype).copy_(value)

    def _gradients(self, batch: Split, num_examples: int) -> Tensor:
        """Set the gradients of the whole batch's mean loss, micro-batch by micro-batch, and return that loss."""
        losses, size = [], 1
        if self.ranks is not None:
            num_examples, size = self.ranks.num_computed(num_examples), self.ranks.size
        num_parts = -(-len(batch.targets) // self.micro_batch_size)
        for index, part in enumerate(batch.parts(self.micro_batch_size)):
            inputs = part.network_inputs()
            if self.images_last and inputs.ndim == 4:
                inputs = inputs.contiguous(memory_format=torch.channels_last)
            with self._handing_round(index == num_parts - 1):
                share = len(part.targets) / num_examples
                loss = share * nn.functional.cross_entropy(self.forward(inputs), part.targets)
                losses.append(loss.detach())
                if self.ranks is not None:
                    loss = size * loss  # torch takes the mean over the processes, this makes it the sum
                is_first = index == 0  # the penalty does not depend on the examples
                penalised = loss + self.hooks.penalty() if self.hooks.penalty and is_first else loss
                penalised.backward()  # type: ignore[no-untyped-call]
        total = torch.stack(losses).sum()
        return total if self.ranks is None else self.ranks.summed(total)

    def _handing_round(self, is_last: bool) -> AbstractContextManager[None]:
        """Let gradients be added up over the processes once, with the last micro-batch."""
        if is_last or not isinstance(self.forward, DistributedDataParallel):
            return nullcontext()
        waiting: AbstractContextManager[None] = self.forward.no_sync()
        return waiting


def _optimiser(trained: list[Tensor], recipe: Recipe) -> torch.optim.Optimizer:
    fused = all(_can_be_fused(each) for each in trained)
    options: dict[str, Any] = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay, "fused": fused}
    if recipe.optimiser == "adam":
        return torch.optim.Adam(trained, **options)
    return torch.optim.SGD(trained, momentum=recipe.momentum, nesterov=recipe.nesterov, **options)


def _can_be_fused(weight: Tensor) -> bool:
    is_dense = torch.empty_like(weight).stride() == weight.stride()  # they step through memory, holes included
    return weight.dtype in FUSED and weight.device.type in ("cpu", "cuda") and is_dense


def _align_gradients(weights: list[Tensor]) -> None:
    """Bring gradients into the memory order of their weights.

    Fused optimisers of torch 2.13 pair numbers by their place in memory, and are wrong without a word where it differs.
    """
    for weight in weights:
        if weight.grad is not None and weight.grad.stride() != weight.stride():
            weight.grad = torch.empty_like(weight).copy_(weight.grad)


def _gradients(weights: list[Tensor]) -> list[Tensor]:
    """Return the gradients of weights that the loss reaches; one that it does not reach has none to change."""
    for weight in weights:
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
    return [weight.grad for weight in weights if weight.grad is not None]
