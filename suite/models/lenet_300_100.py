"""LeNet-300-100: input - 300 - 100 - classes with ReLU and biases (LeCun et al. 1998); 266,200 weights on 28x28."""

from torch import nn

from suite.models._mlp import perceptron
from suite.strict import Settings

VERSION = 1  # raise when the function computed from the same weights changes


class Options(Settings):
    """None: the widths are the name. Others: model mlp."""


def build(options: Options, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """Return the network; inputs (n, *input_shape) are flattened, outputs are (n, num_classes) logits."""
    del options
    return perceptron(input_shape, (300, 100), num_classes)
