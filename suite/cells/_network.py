"""A network with its weights and data in memory: what an SLQ worker, an analysis and the command line compute on."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from suite.curvature.allocation import hand_back_freed_memory
from suite.curvature.arithmetic import Execution, Operands
from suite.curvature.memory import HAND_BACK_ABOVE_BYTES, memory_plan
from suite.curvature.operators import HessianOperator, flatten_weights
from suite.errors import UserError
from suite.limits.tolerance import BATCH_SIZE, batch_loss_std
from suite.network import prunable_weights
from suite.problem import evaluate
from suite.seeds import generator
from suite.splits import Splits

EXAMPLES_PER_BATCH = 2048  # of one Hessian-vector product, at most; bounds memory only
DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass
class Network:
    """A network with its weights and data in memory.

    Attributes:
        model: in eval mode.
        splits: on the model's device.
    """

    model: nn.Module
    splits: Splits

    def weights(self) -> np.ndarray:
        """Return the prunable weights as one float64 vector (dim,), in the order of all operators."""
        return flatten_weights(
            [weight.detach().cpu().double() for weight in prunable_weights(self.model).values()]
        ).numpy()

    def hessian(
        self, dtype: str, split: str = "train", shard: tuple[int, int] = (0, 1), operands: Operands = "full"
    ) -> HessianOperator:
        """Return the Hessian of the mean loss over a whole split, un-augmented, with batches fixed by memory_plan.

        operands: what products round, see Execution.
        shard: (rank, size): of `size` parts of the examples, which differ by one at most, only that of rank. The mean
        is over the whole split all the same, so the products of all parts add up.

        Raises:
            UserError: there are more parts than examples.
        """
        inputs, targets = (part.tensor_split(shard[1])[shard[0]] for part in self.splits[split][:2])
        num_examples, normalisation = len(self.splits[split].targets), self.splits[split].normalisation
        if shard[1] > 1:
            if shard[1] > num_examples:
                raise UserError(
                    f"group_size={shard[1]} is too large for {num_examples} examples. Expected: at most {num_examples}."
                )
            inputs, targets = inputs.clone(), targets.clone()  # a view would keep all the data in the device's memory
        names = list(prunable_weights(self.model))
        few = [(inputs[:2], targets[:2])]
        trial = HessianOperator(
            self.model, names, few, DTYPES[dtype], normalisation=normalisation, execution=Execution(operands)
        )
        plan = memory_plan(trial, len(targets), data_bytes=inputs.nbytes)
        size = min(EXAMPLES_PER_BATCH, plan.examples_per_batch)
        if inputs.device.type == "cpu" and plan.product_bytes > HAND_BACK_ABOVE_BYTES:
            hand_back_freed_memory()  # so that the process takes what its tensors do
        execution = Execution(operands, keep_graphs=plan.num_kept_examples > 0)  # kept: same bits, less time
        batches = list(zip(torch.split(inputs, size), torch.split(targets, size), strict=True))
        operator = HessianOperator(
            self.model,
            names,
            batches,
            DTYPES[dtype],
            num_examples=num_examples,
            normalisation=normalisation,
            execution=execution,
        )
        operator.plan = plan
        return operator

    def loss_tolerance_nats(self, split: str = "train") -> float:
        """Return the paper's tolerance: the standard deviation of mini-batch losses, batch 128, fixed order."""
        examples = self.splits[split]
        if len(examples.targets) <= BATCH_SIZE:
            raise UserError(
                f"{len(examples.targets)} examples make one batch of {BATCH_SIZE}; its loss has no spread. "
                "Give --loss-tolerance (nats), or the option loss_tolerance_nats."
            )
        return batch_loss_std([evaluate(self.model, *batch).loss for batch in examples.parts(BATCH_SIZE)])

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
        return Network(self.model, {**self.splits, "train": train.part(chosen.to(train.targets.device))})
