"""FC5: input - 1000 - 600 - 300 - 100 - classes with ReLU and biases; 3,883,000 prunable weights on 3x32x32 images."""

from torch import nn

from suite.models._mlp import perceptron
from suite.strict import Settings

VERSION = 1  # raise when the function computed from the same weights changes


class Options(Settings):
    """None: the widths are the name. Others: model mlp."""


def build(options: Options, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """Return the network; inputs (n, *input_shape) are flattened, outputs are (n, num_classes) logits."""
    del options
    return perceptron(input_shape, (1000, 600, 300, 100), num_classes)
