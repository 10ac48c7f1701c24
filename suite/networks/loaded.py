"""A network with its weights and data in memory: what an SLQ worker, an analysis and the command line compute on."""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from suite.curvature.allocation import hand_back_freed_memory
from suite.curvature.arithmetic import Execution, Operands
from suite.curvature.convexified import ConvexifiedOperator, correction
from suite.curvature.lanczos import Progress
from suite.curvature.memory import HAND_BACK_ABOVE_BYTES, MAX_EXAMPLES_PER_BATCH, Growths, MemoryPlan, memory_plan
from suite.curvature.operators import GaussNewtonOperator, HessianOperator, flatten_weights
from suite.datasets import MOST_OF_FREE_MEMORY
from suite.errors import UserError
from suite.limits.tolerance import BATCH_SIZE, batch_loss_std
from suite.network import prunable_weights
from suite.problem import evaluate
from suite.seeds import generator
from suite.splits import Examples, Split, Splits

logger = logging.getLogger("suite.curvature")  # where plans are told

_FEW = 32  # examples: so few are one batch, and need no plan
DTYPES = {"float32": torch.float32, "float64": torch.float64}
Operator = TypeVar("Operator", HessianOperator, GaussNewtonOperator)


@dataclass
class Network:
    """A network with its weights and data in memory.

    Attributes:
        model: in eval mode.
        splits: on the model's device.
        growths: what products took in memory, by matrix, arithmetic and split; shared by all parts of the network, so
            that each is planned by one trial.
    """

    model: nn.Module
    splits: Splits
    growths: dict[tuple[str, str, Operands, str], Growths] = field(default_factory=dict, repr=False, compare=False)

    def weights(self) -> np.ndarray:
        """Return the prunable weights as one float64 vector (dim,), in the order of all operators."""
        return flatten_weights(
            [weight.detach().cpu().double() for weight in prunable_weights(self.model).values()]
        ).numpy()

    def hessian(
        self,
        dtype: str,
        split: str = "train",
        shard: tuple[int, int] = (0, 1),
        operands: Operands = "full",
        *,
        may_keep_graphs: bool = True,
    ) -> HessianOperator:
        """Return the Hessian of the mean loss over a whole split, un-augmented, with batches fixed by memory_plan.

        operands: what products round, see Execution.
        shard: (rank, size): of `size` parts of the examples, which differ by one at most, only that of rank. The mean
        is over the whole split all the same, so the products of all parts add up.
        may_keep_graphs: from product to product, where they fit: the same bits in less time.

        Raises:
            UserError: there are more parts than examples, or the network has no fixed Hessian; its module is named.
        """
        with _told_to_its_owner():
            return self._planned(HessianOperator, dtype, split, shard, operands, may_keep_graphs)

    def gauss_newton(self, dtype: str, split: str = "train", *, may_keep_graphs: bool = True) -> GaussNewtonOperator:
        """Return the Gauss-Newton matrix of the mean loss over a whole split, as `hessian` returns the Hessian."""
        with _told_to_its_owner():
            return self._planned(GaussNewtonOperator, dtype, split, (0, 1), "full", may_keep_graphs)

    def convexified(self, dtype: str, split: str = "train", progress: Progress | None = None) -> ConvexifiedOperator:
        """Return the positive semidefinite stand-in for `hessian`, see suite.curvature.convexified.

        Raises:
            ValueError: a product was not finite.
        """
        plain = self.gauss_newton(dtype, split, may_keep_graphs=False)  # two operators may not keep graphs at a time
        hessian = self.hessian(dtype, split, may_keep_graphs=False)
        found = correction(hessian, plain, hessian.weights(), progress=progress)
        return ConvexifiedOperator(self.gauss_newton(dtype, split), found)

    def _planned(
        self,
        kind: type[Operator],
        dtype: str,
        split: str,
        shard: tuple[int, int],
        operands: Operands,
        may_keep_graphs: bool,
    ) -> Operator:
        part, num_examples = self.splits[split], len(self.splits[split].targets)
        if shard[1] > 1:
            if shard[1] > num_examples:
                raise UserError(
                    f"group_size={shard[1]} is too large for {num_examples} examples. Expected: at most {num_examples}."
                )
            part = _shard(part, *shard)
        num_here = len(part.targets)
        if num_here <= _FEW:
            return self._operator(kind, part, num_here, num_examples, dtype, Execution(operands))
        trial = self._operator(kind, part.part(slice(2)), 2, num_examples, dtype, Execution(operands))
        known = self.growths.setdefault((kind.__name__, dtype, operands, split), {})
        data_bytes = _data_bytes(part, trial.device)
        plan = memory_plan(trial, num_here, data_bytes=data_bytes, may_keep_graphs=may_keep_graphs, known=known)
        _spare_the_heap(plan)
        execution = Execution(operands, keep_graphs=plan.num_kept_examples > 0)  # kept: same bits, less time
        operator = self._operator(kind, part, plan.examples_per_batch, num_examples, dtype, execution)
        operator.plan = plan
        return operator

    def _operator(
        self, kind: type[Operator], part: Examples, size: int, num_examples: int, dtype: str, execution: Execution
    ) -> Operator:
        return kind(
            self.model,
            list(prunable_weights(self.model)),
            part.pairs(size),
            DTYPES[dtype],
            num_examples=num_examples,
            normalisation=part.normalisation,
            execution=execution,
        )

    def loss_tolerance_nats(self, split: str = "train") -> float:
        """Return the paper's tolerance: the standard deviation of mini-batch losses, batch 128, fixed order.

        Raises:
            UserError: there is one batch alone, or a loss is not finite.
        """
        examples = self.splits[split]
        if len(examples.targets) <= BATCH_SIZE:
            raise UserError(
                f"{len(examples.targets)} examples make one batch of {BATCH_SIZE}; its loss has no spread. "
                "Give --loss-tolerance NATS, or in a study loss_tolerance_nats under [options.limit]."
            )
        losses = [evaluate(self.model, batch).loss for batch in examples.parts(BATCH_SIZE)]
        num_lost = sum(not math.isfinite(loss) for loss in losses)
        if num_lost:
            raise UserError(
                f"The loss is not finite in {num_lost} of {len(losses)} batches of {BATCH_SIZE} examples: the weights, "
                "finite as they are, have diverged. Expected: finite losses. Give weights from earlier in training."
            )
        return batch_loss_std(losses)

    def with_train_examples(self, num_examples: int | None, seed: int) -> "Network":
        """Return the network with a random part of its training split; a smaller part lies within a larger one."""
        if num_examples is None:
            return self
        train = self.splits["train"]
        most = len(train.targets)
        if not 1 <= num_examples <= most:
            raise UserError(f"num_examples={num_examples} is out of range. Expected: 1 to {most}.")
        # Sorted, so that all examples are the split as it stands.
        chosen = torch.randperm(most, generator=generator(seed, "examples"))[:num_examples].sort().values
        part = train.part(chosen.to(train.targets.device))
        return Network(self.model, {**self.splits, "train": part}, self.growths)


def _shard(examples: Examples, rank: int, size: int) -> Examples:
    """Return one of `size` runs that differ by one example at most; of a Split a copy: a view would keep all of it."""
    share, larger = divmod(len(examples.targets), size)
    begin = rank * share + min(rank, larger)
    part = examples.between(begin, begin + share + (rank < larger))
    return Split(part.inputs.clone(), part.targets.clone(), part.normalisation) if isinstance(part, Split) else part


def _data_bytes(examples: Examples, device: torch.device) -> int:
    """Return what inputs count for where batch sizes are chosen: the same whether they are streamed or not.

    Rounding depends on batch sizes, so they may depend on the device's whole memory, but not on what is free. More than
    suite.datasets.fits allows of the whole is streamed for certain: then two of the largest batches are there at once.
    """
    whole = examples.inputs_bytes
    if device.type != "cuda":
        return whole
    total = torch.cuda.get_device_properties(device).total_memory
    if whole <= MOST_OF_FREE_MEMORY * total:
        return whole
    return min(whole, 2 * MAX_EXAMPLES_PER_BATCH * whole // len(examples.targets))


@contextmanager
def _told_to_its_owner() -> Iterator[None]:
    """Make a UserError of what is wrong with a network: it is its owner's to mend."""
    try:
        yield
    except ValueError as error:
        raise UserError(str(error)) from error


def _spare_the_heap(plan: MemoryPlan) -> None:
    if plan.device.type == "cpu" and plan.product_bytes > HAND_BACK_ABOVE_BYTES and hand_back_freed_memory():
        logger.info("curvature: from now on large freed tensors go back to the system at once")
