"""FC12: input - 1000-900-800-750-700-650-600-500-400-200-100 - classes, ReLU, biases; 7,263,000 weights on 3x32x32."""

from torch import nn

from suite.models._mlp import perceptron
from suite.strict import Settings

VERSION = 1  # raise when the function computed from the same weights changes


class Options(Settings):
    """None: the widths are the name. Others: model mlp."""


def build(options: Options, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """Return the network; inputs (n, *input_shape) are flattened, outputs are (n, num_classes) logits."""
    del options
    hidden = (1000, 900, 800, 750, 700, 650, 600, 500, 400, 200, 100)
    return perceptron(input_shape, hidden, num_classes)
