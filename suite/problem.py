"""A network together with its data: what is trained, pruned and measured."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from suite.curvature.arithmetic import Operands, tensor_cores
from suite.evaluation_batch import LARGEST_BATCH, evaluation_batch
from suite.initialisation import initialise
from suite.memory_order import channels_last
from suite.network import ModelSpec, build_model, other_names, prunable_weights
from suite.splits import Examples, Splits
from suite.study import Initialisation


@dataclass
class Problem:
    """A network on a device and the splits of its data set on the same device.

    Attributes:
        model: the network; methods and training change its weights in place.
        splits: "train", "validation", "test".
    """

    model: nn.Module
    splits: Splits

    @classmethod
    def of(
        cls, spec: ModelSpec, splits: Splits, *, initialisation: Initialisation, seed: int, device: str
    ) -> "Problem":
        """Build and initialise a network; the same seed gives the same weights on every device."""
        model = build_model(spec, seed)
        initialise(model, initialisation, seed)
        return cls(model.to(device), splits)

    @property
    def prunable(self) -> dict[str, nn.Parameter]:
        """Return the prunable weights by name, in module order."""
        return prunable_weights(self.model)

    @property
    def num_prunable(self) -> int:
        """Return their number."""
        return sum(weight.numel() for weight in self.prunable.values())

    def state(self) -> dict[str, Tensor]:
        """Return a copy of all parameters and buffers on the CPU."""
        return {name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Set all parameters and buffers; a shared one to what stands under the name by which masks know it."""
        others = other_names(self.model)
        self.model.load_state_dict({name: state[others.get(name, name)] for name in state})


class Evaluation(NamedTuple):
    """Mean cross-entropy in nats and the share of correct answers."""

    loss: float
    accuracy: float


@torch.no_grad()
def evaluate(
    model: nn.Module,
    examples: Examples,
    *,
    batch_size: int | None = None,
    operands: Operands = "full",
) -> Evaluation:
    """Evaluate a network on every example once, in eval mode, and leave it in the mode it was in.

    Args:
        model: returns logits (n, num_classes).
        examples: at least one.
        batch_size: at most so many examples per forward pass, such as a recipe's micro-batch; None: LARGEST_BATCH. A
            wide network takes fewer in any case, see suite.evaluation_batch.
        operands: what those of products are rounded to; weights, and the loss of the logits, never are.

    Returns:
        Loss summed in float64 over all examples and divided by n; accuracy from an exact count.
    """
    was_training = model.training
    model.eval()
    device = examples.targets.device
    loss = torch.zeros((), dtype=torch.float64, device=device)
    correct = torch.zeros((), dtype=torch.int64, device=device)  # no batch waits for the one before
    coarse = torch.autocast(device.type, torch.bfloat16) if operands == "bfloat16" else nullcontext()
    with channels_last(model), tensor_cores(operands, device), coarse:
        largest = evaluation_batch(model, examples.part(slice(0, 1)).network_inputs())
        for batch in examples.parts(min(batch_size or LARGEST_BATCH, largest)):
            logits = model(batch.network_inputs())
            loss += nn.functional.cross_entropy(logits.double(), batch.targets, reduction="sum")
            correct += (logits.argmax(dim=1) == batch.targets).sum()
    model.train(was_training)
    return Evaluation(float(loss) / len(examples.targets), int(correct) / len(examples.targets))


def as_arrays(state: Mapping[str, Tensor], prefix: str) -> dict[str, np.ndarray]:
    """Return a state dict as arrays named prefix/NAME, ready to be stored."""
    return {f"{prefix}/{name}": value.detach().cpu().numpy() for name, value in state.items()}


def as_state(arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """Return stored arrays as a state dict on the CPU."""
    return {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
