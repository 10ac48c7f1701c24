"""MLPNet: input - 40 - 20 - classes with ReLU, without biases (WoodFisher, CHITA); 32,360 weights on 28x28 images."""

from torch import nn

from suite.models._mlp import perceptron
from suite.strict import Settings

VERSION = 1  # raise when the function computed from the same weights changes


class Options(Settings):
    """None: the widths are the name. Others: model mlp."""


def build(options: Options, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """Return the network; inputs (n, *input_shape) are flattened, outputs are (n, num_classes) logits.

    The original ends in a logarithmic softmax, which cross-entropy does here.
    """
    del options
    return perceptron(input_shape, (40, 20), num_classes, biases=False)
