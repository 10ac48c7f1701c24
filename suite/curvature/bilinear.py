"""The three maps of a bilinear layer between inputs, weight and outputs; each is the derivative of the others."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Convolve:
    """The three bilinear maps between a convolution's inputs, weight and outputs."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    def to_outputs(self, inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return the layer's outputs."""
        outputs: Tensor = torch.ops.aten.convolution(inputs, weight, bias, *self._geometry())
        return outputs

    def along_outputs(self, bias: Tensor) -> Tensor:
        """Return a bias as it is added to outputs."""
        return bias.view(-1, *(1,) * len(self.stride))

    def to_inputs(self, outputs: Tensor, weight: Tensor, like: Tensor) -> Tensor:
        """Return the cotangent of inputs, which look like `like`, from that of outputs."""
        return self._backward(outputs, like, weight, 0)

    def to_weight(self, inputs: Tensor, outputs: Tensor, like: Tensor) -> Tensor:
        """Return the cotangent of the weight, which looks like `like`, from that of outputs."""
        return self._backward(outputs, inputs, like, 1)

    def _backward(self, outputs: Tensor, inputs: Tensor, weight: Tensor, which: int) -> Tensor:
        wanted = [index == which for index in range(3)]
        found = torch.ops.aten.convolution_backward(outputs, inputs, weight, None, *self._geometry(), wanted)
        gradient: Tensor = found[which]
        return gradient

    def _geometry(self) -> tuple[Any, ...]:
        output_padding = (0,) * len(self.stride)
        return self.stride, self.padding, self.dilation, False, output_padding, self.groups


class Multiply:
    """The same maps of a linear layer: inputs (..., in), weight (out, in), outputs (..., out)."""

    def to_outputs(self, inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return the layer's outputs."""
        return functional.linear(inputs, weight, bias)

    def along_outputs(self, bias: Tensor) -> Tensor:
        """Return a bias as it is added to outputs."""
        return bias

    def to_inputs(self, outputs: Tensor, weight: Tensor, like: Tensor) -> Tensor:
        """Return the cotangent of inputs, which look like `like`, from that of outputs."""
        del like
        return outputs.matmul(weight)

    def to_weight(self, inputs: Tensor, outputs: Tensor, like: Tensor) -> Tensor:
        """Return the cotangent of the weight, which looks like `like`, from that of outputs."""
        num_outputs, num_inputs = like.shape
        return outputs.reshape(-1, num_outputs).t().mm(inputs.reshape(-1, num_inputs))


Bilinear = Convolve | Multiply


def named_padding(
    name: str, stride: tuple[int, ...], dilation: tuple[int, ...], weight: Tensor
) -> tuple[int, ...] | None:
    """Return zeros per side and dimension; None: not the same on both sides, or not allowed, which torch must say."""
    if name == "valid":
        return (0,) * len(stride)
    zeros = [step * (size - 1) for step, size in zip(dilation, weight.shape[2:], strict=True)]
    if name != "same" or any(step != 1 for step in stride) or any(total % 2 for total in zeros):
        return None
    return tuple(total // 2 for total in zeros)


def per_dim(value: Any, num_dims: int) -> tuple[int, ...]:
    """Return a setting of every dimension, which callers may give once for all."""
    values = tuple(value) if isinstance(value, tuple | list) else (value,)
    return values * num_dims if len(values) == 1 else values
