"""Multilayer perceptron with ReLU and biases: input - hidden... - classes (FC5, FC12, LeNet-300-100, mlp-digits)."""

from typing import Annotated

from pydantic import Field
from torch import nn

from suite.models._mlp import perceptron
from suite.strict import Settings

VERSION = 1  # raise when the function computed from the same weights changes


class Options(Settings):
    """Widths of the hidden layers."""

    hidden: tuple[Annotated[int, Field(ge=1)], ...] = (300, 100)


def build(options: Options, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """Return the network; inputs (n, *input_shape) are flattened, outputs are (n, num_classes) logits."""
    return perceptron(input_shape, options.hidden, num_classes)
