"""A network as a fixed function of its prunable weights: what every operator of a loss differentiates."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from suite.curvature.determinism import refuse_changing_batches, refuse_nondeterministic
from suite.curvature.kernels import Kernels
from suite.splits import Normalisation

Batches = Sequence[tuple[Tensor, Tensor]]


class Logits:
    """Copies of a network's weights and what maps inputs to logits with them.

    Args:
        model: maps inputs to logits (batch, num_classes). Put in eval mode, otherwise left as it is.
        names: the prunable parameters by name.
        batches: a fixed pass over pairs of inputs (batch, ...) and class indices (batch,).
        dtype: floating inputs, parameters and buffers are converted to it.
        kernels: how convolutions, linear layers and batch norms are computed; None: by torch.
        normalisation: applied to uint8 inputs, one batch at a time; None: integers reach the model as they are.
        channels_last: keep images and filters in the memory order (n, h, w, c), for which most kernels are made.

    Raises:
        ValueError: a name is unknown or repeated, there is no example, the batches change between two passes, the
            logits carry no gradient to the weights, or the network is not a fixed function of each single example;
            the module is named.
    """

    def __init__(
        self,
        model: nn.Module,
        names: Sequence[str],
        batches: Batches,
        dtype: torch.dtype,
        *,
        kernels: Kernels | None = None,
        normalisation: Normalisation | None = None,
        channels_last: bool = False,
    ) -> None:
        parameters = dict(model.named_parameters())
        _check_names(names, parameters)
        self._model, self._names, self._dtype = model, tuple(names), dtype
        self._kernels, self._normalisation = kernels, normalisation
        self._channels_last = channels_last
        state = {**parameters, **dict(model.named_buffers())}
        self._fixed = {name: self._converted(value) for name, value in state.items() if name not in self._names}
        self.weights = tuple(self._converted(parameters[name]).requires_grad_() for name in self._names)
        self.device = self.weights[0].device
        self._batches = batches
        refuse_changing_batches(batches)
        self.num_examples = sum(len(targets) for _, targets in batches)
        if self.num_examples:
            self._check(next(inputs for inputs, _ in batches if len(inputs))[:2])

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield inputs as the network takes them and class indices, batch by batch, on the network's device."""
        for inputs, targets in self._batches:
            yield self._inputs(inputs), targets.to(self.device)

    def few_inputs(self, num_examples: int) -> tuple[Tensor, Tensor]:
        """Return copies of at most num_examples of the first batch that has any, as they were given."""
        inputs, targets = next(pair for pair in self._batches if len(pair[1]))
        return inputs[:num_examples].clone(), targets[:num_examples].clone()

    def over(self, batches: Batches) -> "Logits":
        """Return the same map with the same weights over other examples."""
        other = copy.copy(self)
        other._batches, other.num_examples = batches, sum(len(targets) for _, targets in batches)
        return other

    def __call__(self, inputs: Tensor) -> Tensor:
        """Return logits (n, num_classes) of inputs from batches()."""
        state = {**self._fixed, **dict(zip(self._names, self.weights, strict=True))}
        with sdpa_kernel(SDPBackend.MATH):  # the fused attention kernels have no second derivative
            if self._kernels is None:
                logits: Tensor = functional_call(self._model, state, (inputs,))
            else:
                with self._kernels:
                    logits = functional_call(self._model, state, (inputs,))
        return logits

    def state_bytes(self) -> int:
        """Return the size of the copies of parameters and buffers."""
        return sum(value.nbytes for value in (*self._fixed.values(), *self.weights))

    def for_cotangents(self) -> AbstractContextManager[None]:
        """See Kernels.for_cotangents; nothing where torch's own kernels are used."""
        return nullcontext() if self._kernels is None else self._kernels.for_cotangents()

    def _inputs(self, inputs: Tensor) -> Tensor:
        inputs = inputs.to(self.device)
        if inputs.dtype == torch.uint8 and self._normalisation is not None:
            inputs = self._normalisation(inputs)
        return self._ordered(inputs.to(self._dtype) if inputs.is_floating_point() else inputs)

    def _converted(self, value: Tensor) -> Tensor:
        value = value.detach().to(self._dtype if value.is_floating_point() else value.dtype, copy=True)
        return self._ordered(value)

    def _ordered(self, value: Tensor) -> Tensor:
        if self._channels_last and value.ndim == 4:
            return value.contiguous(memory_format=torch.channels_last)
        return value

    def _check(self, few_inputs: Tensor) -> None:
        few = self._inputs(few_inputs)
        refuse_nondeterministic(self._model, self, few)
        with torch.enable_grad():
            if not self(few).requires_grad:
                raise ValueError(
                    f"The logits carry no gradient to {', '.join(self._names)}. "
                    "Expected: a network that uses its prunable weights and does not detach."
                )


def _check_names(names: Sequence[str], parameters: dict[str, nn.Parameter]) -> None:
    unknown = sorted(set(names) - set(parameters))
    if unknown:
        raise ValueError(f"No parameters named {', '.join(unknown)}. Known: {', '.join(sorted(parameters))}.")
    repeated = sorted({name for name in names if list(names).count(name) > 1})
    if repeated:
        raise ValueError(f"Parameters named twice: {', '.join(repeated)}. Expected: each prunable parameter once.")
    if not names:
        raise ValueError("names holds 0 parameters. Expected: at least 1 prunable parameter.")
