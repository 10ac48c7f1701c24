"""Where networks come from: a committed cell, what a user brings, or this process; each an OperatorSource by path."""

import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from suite.curvature.arithmetic import Operands
from suite.curvature.operators import HessianOperator
from suite.datasets import stored_splits, verified_splits
from suite.errors import UserError, first_line
from suite.network import ModelSpec, build_model, build_user_model, check_logits, prunable_weights
from suite.networks.given import Array, given_examples
from suite.networks.loaded import Network
from suite.problem import as_state
from suite.splits import Split
from suite.state_dict import load_state, read_state
from suite.store import CellId, Store

_LOOKED_AT = 2048  # examples at a time


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
        """Return the Hessian over the training split, or over num_examples of it.

        Raises:
            UserError: the network is random, normalises by the batch, or detaches its weights; the module is named. Or
                it has fewer examples.
        """
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
        splits = verified_splits(self.data, self.data_sha256, self.device)
        return Network(model.to(self.device).eval(), splits)

    def with_examples(self, num_examples: int | None, subset_seed: int) -> "StoredNetwork":
        """Return the same network over some of the examples."""
        return replace(self, num_examples=num_examples, subset_seed=subset_seed)

    def build(self) -> HessianOperator:
        """Return the Hessian over the training split, or over num_examples of it."""
        return _hessian(self)

    def build_shard(self, rank: int, size: int) -> HessianOperator:
        """Return the part of the Hessian that one of `size` processes computes."""
        return _hessian(self, (rank, size))


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
        network = Network(model.to(self.device).eval(), stored_splits(self.data, self.device))
        _check_takes(network, self.reference)
        return network

    def with_examples(self, num_examples: int | None, subset_seed: int) -> "UserNetwork":
        """Return the same network over some of the examples."""
        return replace(self, num_examples=num_examples, subset_seed=subset_seed)

    def build(self) -> HessianOperator:
        """Return the Hessian over the training split, or over num_examples of it."""
        return _hessian(self)

    def build_shard(self, rank: int, size: int) -> HessianOperator:
        """Return the part of the Hessian that one of `size` processes computes."""
        return _hessian(self, (rank, size))


@dataclass(frozen=True, repr=False)
class HeldNetwork:
    """A source whose network is in this process already, for maps that compute here: it is not loaded twice.

    Its runs are saved under the name of what it stands for.
    """

    source: NetworkSource
    network: Network = field(compare=False)

    def __repr__(self) -> str:
        """Return what saved runs are found under."""
        return repr(self.source)

    @property
    def dtype(self) -> str:
        """Type of the arithmetic."""
        return self.source.dtype

    @property
    def operands(self) -> Operands:
        """What products round."""
        return self.source.operands

    @property
    def num_examples(self) -> int | None:
        """Of the training split; None: all."""
        return self.source.num_examples

    @property
    def subset_seed(self) -> int:
        """Which examples these are."""
        return self.source.subset_seed

    def load(self) -> Network:
        """Return the network itself."""
        return self.network

    def with_examples(self, num_examples: int | None, subset_seed: int) -> "HeldNetwork":
        """Return the same network over some of the examples."""
        return HeldNetwork(self.source.with_examples(num_examples, subset_seed), self.network)

    def build(self) -> HessianOperator:
        """Return the Hessian over the training split, or over num_examples of it."""
        return _hessian(self)


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
        cls, model: nn.Module, inputs: Array, targets: Array, dtype: str = "float32", operands: Operands = "full"
    ) -> "MemoryNetwork":
        """Take a copy of the model, and the data to where it lies; whole numbers stay what they are.

        Raises:
            UserError: the model has nothing to prune, or a layer that cannot be counted, cannot be copied, or does not
                take the data; or the data are none, see given_examples.
        """
        features, classes = given_examples(inputs, targets)
        own = _copied(model).float().eval()
        device = next(iter(prunable_weights(own).values())).device
        network = Network(own, {"train": Split(features.to(device), classes.to(device))})
        _check_takes(network, type(model).__name__)
        return cls(network, dtype, operands=operands)

    def __repr__(self) -> str:
        """Return what tells sources apart, and no tensors."""
        arithmetic = f"{self.dtype}, {self.operands}"
        return f"MemoryNetwork({id(self.network)}, {arithmetic}, {self.num_examples}, {self.subset_seed})"

    def __eq__(self, other: object) -> bool:
        """Return whether both are the same examples of the same network; tensors are not compared."""
        return isinstance(other, MemoryNetwork) and repr(self) == repr(other)

    def __hash__(self) -> int:
        """Return a hash of what is compared."""
        return hash(repr(self))

    def load(self) -> Network:
        """Return the network itself."""
        return self.network

    def with_examples(self, num_examples: int | None, subset_seed: int) -> "MemoryNetwork":
        """Return the same network over some of the examples."""
        return replace(self, num_examples=num_examples, subset_seed=subset_seed)

    def build(self) -> HessianOperator:
        """Return the Hessian over the training split, or over num_examples of it."""
        return _hessian(self)


def _copied(model: nn.Module) -> nn.Module:
    prunable_weights(model)  # a layer that cannot be counted is named; most of those cannot be copied either
    try:
        return copy.deepcopy(model)
    except Exception as error:  # whatever a user's module keeps is the user's to mend
        raise UserError(
            f"{type(model).__name__} cannot be copied: {first_line(error)}. "
            "Expected: a model that copy.deepcopy takes; detach the tensors that it keeps."
        ) from error


def _hessian(source: NetworkSource, shard: tuple[int, int] = (0, 1)) -> HessianOperator:
    """Return what every source builds."""
    part = source.load().with_train_examples(source.num_examples, source.subset_seed)
    return part.hessian(source.dtype, shard=shard, operands=source.operands)


def _check_takes(network: Network, name: str) -> None:
    """Try a network on two examples, and on those with the least and the largest of token ids."""
    train = network.splits["train"]
    few = train.part(slice(2)).network_inputs()
    if not few.is_floating_point():  # a table of embeddings may be too short for a later example
        for part in train.parts(_LOOKED_AT):
            near = torch.cat([few[2:], part.inputs])
            extremes = torch.stack([near.argmin(), near.argmax()]) // near[0].numel()
            few = torch.cat([few[:2], near[extremes]])
    check_logits(network.model, few, int(train.targets.max()) + 1, name)
