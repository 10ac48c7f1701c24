"""What changes from step to step of a training, for a checkpoint. Rate, order and crops are functions of the step."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor, nn

from suite.training.checkpoint import Stage, State, described, packed, unpacked
from suite.training.data_parallel import Ranks
from suite.training.divergence import EpochLosses
from suite.training.hooks import Hooks
from suite.training.stepper import Stepper


@dataclass
class History:
    """What happened in a training.

    Attributes:
        num_steps: gradient steps done.
        num_examples: examples that went forward and backward.
        curves: per finished epoch: epoch, train_loss (mean over its batches, nats), learning_rate (of its last step),
            validation_loss, validation_accuracy, test_loss, test_accuracy.
    """

    num_steps: int = 0
    num_examples: int = 0
    curves: dict[str, list[float]] = field(default_factory=dict)


@dataclass
class Changing:
    """All that changes, which a training is saved as and goes on from."""

    model: nn.Module
    stepper: Stepper
    hooks: Hooks
    losses: EpochLosses
    history: History = field(default_factory=History)

    def state(self, step: int) -> State:
        """Return all of it, not copied, before the given step."""
        tensors = {"losses": self.losses.values, "generator/cpu": torch.get_rng_state()}
        if self.losses.values.is_cuda:  # layers that draw, such as dropout, draw from the generators of torch itself
            tensors["generator/cuda"] = torch.cuda.get_rng_state(self.losses.values.device)
        tensors |= {f"model/{name}": value for name, value in self._values().items()}
        tensors |= {f"optimiser/{name}": value for name, value in self.stepper.state().items()}
        tensors |= {f"hooks/{name}": value for name, value in self.hooks.state().items()}
        return State(step, tensors, {"history": asdict(self.history)})

    @torch.no_grad()
    def restored(self, stage: Stage | None, start_step: int, ranks: Ranks | None = None) -> int:
        """Set everything to the latest state that was saved, if there is one; return the next step.

        Of several processes the first one finds it for all.
        """
        found = stage.latest() if stage else None
        if ranks is not None:
            found = _of_first(found, ranks)
        if found is None:
            return start_step
        for name, value in self._values().items():
            value.copy_(found.tensors[f"model/{name}"])
        self.stepper.restore(_below("optimiser/", found.tensors))
        self.losses.values.copy_(found.tensors["losses"])
        self.history = History(**found.facts["history"])
        torch.set_rng_state(found.tensors["generator/cpu"])
        if self.losses.values.is_cuda:
            torch.cuda.set_rng_state(found.tensors["generator/cuda"], self.losses.values.device)
        self.hooks.restore(_below("hooks/", found.tensors))
        return found.step

    def _values(self) -> dict[str, Tensor]:
        """Return parameters and buffers, also those that a state dict leaves out."""
        return {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}


def _of_first(found: State | None, ranks: Ranks) -> State | None:
    """Return what the first process has found."""
    words, numbers = b"", b""
    if found is not None and ranks.is_first:
        facts = {"step": found.step, "facts": found.facts, "tensors": described(found.tensors)}
        words, numbers = json.dumps(facts).encode(), packed(found.tensors).numpy().tobytes()
    words, numbers = ranks.of_first(words), ranks.of_first(numbers)
    if not words:
        return None
    facts = json.loads(words)
    content = torch.frombuffer(bytearray(numbers), dtype=torch.uint8)
    return State(facts["step"], dict(unpacked(content, facts["tensors"])), facts["facts"])


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
