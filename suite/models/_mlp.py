"""What the multilayer perceptrons share: the layers."""

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import nn


def perceptron(
    input_shape: Sequence[int], hidden: Sequence[int], num_classes: int, *, biases: bool = True
) -> nn.Sequential:
    """Return flatten, linear layers with ReLU between them, and logits (n, num_classes)."""
    widths = [math.prod(input_shape), *hidden, num_classes]
    layers: list[nn.Module] = [nn.Flatten()]
    for fan_in, fan_out in pairwise(widths[:-1]):
        layers += [nn.Linear(fan_in, fan_out, bias=biases), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1], bias=biases))
