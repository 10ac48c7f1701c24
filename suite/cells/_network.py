"""Trained networks by path: what an SLQ worker, an analysis and the command line load, each in its own process."""

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from data._dataset import read_dataset
from suite.cells._datasets import splits_on, verified_dataset
from suite.curvature.allocation import hand_back_freed_memory
from suite.curvature.arithmetic import Execution, Operands
from suite.curvature.memory import HAND_BACK_ABOVE_BYTES, memory_plan
from suite.curvature.operators import HessianOperator, flatten_weights
from suite.errors import UserError
from suite.limits.tolerance import BATCH_SIZE, batch_loss_std
from suite.network import ModelSpec, build_model, build_user_model, check_logits, prunable_weights
from suite.problem import as_state, evaluate
from suite.seeds import generator
from suite.splits import Split, Splits
from suite.state_dict import load_state, read_state
from suite.store import CellId, Store

EXAMPLES_PER_BATCH = 2048  # of one Hessian-vector product, at most; bounds memory only
DTYPES = {"float32": torch.float32, "float64": torch.float64}
_WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


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


class NetworkSource(Protocol):
    """A network that can be loaded anywhere: an OperatorSource over all or some of its training examples."""

    @property
    def dtype(self) -> str:
        """Type of the arithmetic, a key of DTYPES."""
        ...

    @property
    def operands(self) -> Operands:
        """What products round, see Execution."""
        ...

    @property
    def num_examples(self) -> int | None:
        """Of the training split, for the Hessian alone; None: all."""
        ...

    @property
    def subset_seed(self) -> int:
        """Which examples these are."""
        ...

    def load(self) -> Network:
        """Return the network in memory, with all examples."""
        ...

    def build(self) -> HessianOperator:
        """Return the Hessian over the training split, or over num_examples of it."""
        ...

    def with_examples(self, num_examples: int | None, subset_seed: int) -> "NetworkSource":
        """Return the same network over some of the examples; fewer lie within more."""
        ...


@dataclass(frozen=True)
class StoredNetwork:
    """The trained network of a committed dense cell: an OperatorSource that can be sent to any worker."""

    model: ModelSpec
    cell: CellId
    folder: Path
    data: Path
    data_sha256: str
    device: str
    dtype: str = "float32"
    num_examples: int | None = None  # of the training split, for the Hessian alone; None: all
    subset_seed: int = 0
    operands: Operands = "full"

    def load(self) -> Network:
        """Load weights and data by path."""
        state = as_state(Store(self.folder).load(self.cell).arrays_under("weights"))
        model = build_model(self.model)
        load_state(model, state, str(Store(self.folder).path(self.cell)))
        dataset = verified_dataset(self.data, self.data_sha256)
        return Network(model.to(self.device).eval(), splits_on(dataset, self.device))

    def with_examples(self, num_examples: int | None, subset_seed: int) -> "StoredNetwork":
        """Return the same network over some of the examples."""
        return replace(self, num_examples=num_examples, subset_seed=subset_seed)

    def build(self) -> HessianOperator:
        """Return the Hessian over the training split, or over num_examples of it."""
        return (
            self.load()
            .with_train_examples(self.num_examples, self.subset_seed)
            .hessian(self.dtype, operands=self.operands)
        )

    def build_shard(self, rank: int, size: int) -> HessianOperator:
        """Return the part of the Hessian that one of `size` processes computes."""
        network = self.load().with_train_examples(self.num_examples, self.subset_seed)
        return network.hessian(self.dtype, shard=(rank, size), operands=self.operands)


@dataclass(frozen=True, repr=False)
class UserNetwork:
    """A network that a user brings: a function that builds it, a state dict, and an HDF5 file of data."""

    reference: str  # module:function
    weights: Path
    data: Path
    device: str
    dtype: str = "float32"
    num_examples: int | None = None  # of the training split, for the Hessian alone; None: all
    subset_seed: int = 0
    operands: Operands = "full"  # what products round, see Execution

    def __repr__(self) -> str:
        """Return what tells sources apart, with whole paths: saved runs are found again from any folder."""
        paths = f"{str(self.weights.resolve())!r}, {str(self.data.resolve())!r}"
        arithmetic = f"{self.device!r}, {self.dtype!r}, {self.operands!r}"
        return f"UserNetwork({self.reference!r}, {paths}, {arithmetic}, {self.num_examples}, {self.subset_seed})"

    def load(self) -> Network:
        """Build the model, load its weights without unpickling objects, read the data, and try one example.

        Raises:
            UserError: the model cannot be built, the weights do not fit, or the model does not take the data.
            FileRefused: the data file cannot be used.
        """
        model = build_user_model(self.reference).float()
        prunable_weights(model)
        load_state(model, read_state(self.weights), str(self.weights))
        network = Network(model.to(self.device).eval(), splits_on(read_dataset(self.data), self.device))
        _check_takes(network, self.reference)
        return network

    def with_examples(self, num_examples: int | None, subset_seed: int) -> "UserNetwork":
        """Return the same network over some of the examples."""
        return replace(self, num_examples=num_examples, subset_seed=subset_seed)

    def build(self) -> HessianOperator:
        """Return the Hessian over the training split, or over num_examples of it."""
        return (
            self.load()
            .with_train_examples(self.num_examples, self.subset_seed)
            .hessian(self.dtype, operands=self.operands)
        )

    def build_shard(self, rank: int, size: int) -> HessianOperator:
        """Return the part of the Hessian that one of `size` processes computes."""
        network = self.load().with_train_examples(self.num_examples, self.subset_seed)
        return network.hessian(self.dtype, shard=(rank, size), operands=self.operands)


@dataclass(frozen=True, eq=False)
class MemoryNetwork:
    """A network in this process: for notebooks. It is not sent to other workers."""

    network: Network
    dtype: str
    num_examples: int | None = None
    subset_seed: int = 0
    operands: Operands = "full"

    @classmethod
    def of(
        cls, model: nn.Module, inputs: Tensor, targets: Tensor, dtype: str = "float32", operands: Operands = "full"
    ) -> "MemoryNetwork":
        """Take a copy of the model, and the data to where it lies; whole numbers stay what they are.

        Raises:
            UserError: the model has nothing to prune, or does not take the data.
        """
        if inputs.ndim < 2 or targets.ndim != 1 or len(inputs) != len(targets) or not len(targets):
            raise UserError(
                f"inputs have shape {tuple(inputs.shape)} and targets {tuple(targets.shape)}. "
                "Expected: (n, ...) and (n,), n >= 1."
            )
        if targets.is_floating_point() or int(targets.min()) < 0:
            raise UserError(f"targets are {targets.dtype}, from {targets.min():g}. Expected: whole classes from 0.")
        own = copy.deepcopy(model).float().eval()
        device = next(iter(prunable_weights(own).values())).device
        taken = inputs.dtype if inputs.dtype in _WHOLE else torch.float32
        split = Split(inputs.detach().to(device, taken), targets.to(device, torch.int64))
        network = Network(own, {"train": split})
        _check_takes(network, type(model).__name__)
        return cls(network, dtype, operands=operands)

    def __repr__(self) -> str:
        """Return what tells subsets apart, and no tensors."""
        return f"MemoryNetwork({id(self.network)}, {self.operands}, {self.num_examples}, {self.subset_seed})"

    def load(self) -> Network:
        """Return the network itself."""
        return self.network

    def with_examples(self, num_examples: int | None, subset_seed: int) -> "MemoryNetwork":
        """Return the same network over some of the examples."""
        return replace(self, num_examples=num_examples, subset_seed=subset_seed)

    def build(self) -> HessianOperator:
        """Return the Hessian over the training split, or over num_examples of it."""
        return self.network.with_train_examples(self.num_examples, self.subset_seed).hessian(
            self.dtype, operands=self.operands
        )


def _check_takes(network: Network, name: str) -> None:
    """Try a network on two examples, and on those with the least and the largest of token ids."""
    train = network.splits["train"]
    few = train.part(slice(2)).network_inputs()
    if not few.is_floating_point():  # a table of embeddings may be too short for a later example
        extremes = torch.stack([train.inputs.argmin(), train.inputs.argmax()]) // train.inputs[0].numel()
        few = torch.cat([few, train.inputs[extremes]])
    check_logits(network.model, few, int(train.targets.max()) + 1, name)
