"""Trained networks by path: what an SLQ worker, an analysis and the command line load, each in its own process."""

import pickle  # for its error alone
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from data._dataset import read_dataset
from suite.cells._datasets import splits_on, verified_dataset
from suite.curvature.memory import memory_plan
from suite.curvature.operators import HessianOperator, flatten_weights
from suite.errors import UserError
from suite.limits.tolerance import BATCH_SIZE, batch_loss_std
from suite.network import ModelSpec, build_model, build_user_model, load_state, prunable_weights
from suite.problem import Splits, as_state, evaluate
from suite.store import CellId, Store

EXAMPLES_PER_BATCH = 2048  # of one Hessian-vector product, at most; bounds memory only
DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass
class Network:
    """A network with its weights and data in memory.

    Attributes:
        model: in eval mode.
        splits: name -> (inputs, targets) on the model's device.
    """

    model: nn.Module
    splits: Splits

    def weights(self) -> np.ndarray:
        """Return the prunable weights as one float64 vector (dim,), in the order of all operators."""
        return flatten_weights(
            [weight.detach().cpu().double() for weight in prunable_weights(self.model).values()]
        ).numpy()

    def hessian(self, dtype: str, split: str = "train") -> HessianOperator:
        """Return the Hessian of the mean loss over a whole split, un-augmented, with batches fixed by memory_plan."""
        inputs, targets = self.splits[split]
        names = list(prunable_weights(self.model))
        trial = HessianOperator(self.model, names, [(inputs[:2], targets[:2])], DTYPES[dtype])
        size = min(EXAMPLES_PER_BATCH, memory_plan(trial, len(targets), data_bytes=inputs.nbytes).examples_per_batch)
        batches = list(zip(torch.split(inputs, size), torch.split(targets, size), strict=True))
        return HessianOperator(self.model, names, batches, DTYPES[dtype])

    def loss_tolerance_nats(self, split: str = "train") -> float:
        """Return the paper's tolerance: the standard deviation of mini-batch losses, batch 128, fixed order."""
        inputs, targets = self.splits[split]
        if len(targets) <= BATCH_SIZE:
            raise UserError(
                f"{len(targets)} examples make one batch of {BATCH_SIZE}; its loss has no spread. "
                "Give --loss-tolerance (nats), or the option loss_tolerance_nats."
            )
        pairs = zip(torch.split(inputs, BATCH_SIZE), torch.split(targets, BATCH_SIZE), strict=True)
        return batch_loss_std([evaluate(self.model, *pair).loss for pair in pairs])


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

    def load(self) -> Network:
        """Load weights and data by path."""
        state = as_state(Store(self.folder).load(self.cell).arrays_under("weights"))
        model = build_model(self.model)
        load_state(model, state, str(Store(self.folder).path(self.cell)))
        dataset = verified_dataset(self.data, self.data_sha256)
        return Network(model.to(self.device).eval(), splits_on(dataset, self.device))

    def build(self) -> HessianOperator:
        """Return the Hessian over the training split."""
        return self.load().hessian(self.dtype)


@dataclass(frozen=True)
class UserNetwork:
    """A network that a user brings: a function that builds it, a state dict, and an HDF5 file of data."""

    reference: str  # module:function
    weights: Path
    data: Path
    device: str
    dtype: str = "float32"

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
        self._check(network)
        return network

    def build(self) -> HessianOperator:
        """Return the Hessian over the training split."""
        return self.load().hessian(self.dtype)

    def _check(self, network: Network) -> None:
        inputs, targets = network.splits["train"]
        try:
            with torch.no_grad():
                logits = network.model(inputs[:2])
        except Exception as error:  # whatever the user's forward raises is the user's to mend
            shape = tuple(inputs.shape[1:])
            raise UserError(f"{self.reference} does not take inputs of shape {shape}: {_first_line(error)}.") from error
        num_classes = int(targets.max()) + 1
        if not isinstance(logits, Tensor) or logits.ndim != 2 or logits.shape[1] < num_classes:
            got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise UserError(
                f"{self.reference} returned {got} for 2 inputs. Expected: logits (2, classes) for at least "
                f"{num_classes} classes."
            )


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict with weights_only=True: nothing in the file is ever executed.

    Raises:
        UserError: the file is missing, not a torch file, or holds something else than named tensors.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist. Expected: a file from torch.save(model.state_dict(), PATH).") from None
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} cannot be read as weights: it is no torch file, or holds more than tensors, and objects are never "
            "unpickled. Expected: torch.save(model.state_dict(), PATH)."
        ) from error
    except Exception as error:  # torch raises many types for a damaged or hostile file
        raise UserError(
            f"{path} cannot be read as weights: {_first_line(error)}. Expected: torch.save(model.state_dict(), PATH)."
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path} holds no state dict. Expected: torch.save(model.state_dict(), PATH).")
    return state


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return (text[0] if text else type(error).__name__)[:200].rstrip(".")
