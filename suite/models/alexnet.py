"""AlexNet on images scaled up to 224 pixels: five convolutions, three linear layers with biases; 46,778,400 weights.

Source: Krizhevsky, Sutskever, Hinton (2012), NeurIPS, with the widths and paddings of Zhang et al. (2024, LOMP): 96,
256, 384, 384 and 256 channels, no normalisation, no dropout. 92 % of the weights stand in the linear layers.
Cost: about 1.0 G multiply-adds per image, whatever its size was.
"""

from typing import Annotated

from pydantic import Field
from torch import nn

from suite.strict import Settings

VERSION = 1  # raise when the function computed from the same weights changes
SIZE = 224  # pixels per side that the first convolution sees: 7 times CIFAR's 32


class Options(Settings):
    """dropout: of the inputs of the two hidden linear layers, in training; 0.5 in 2012, none in LOMP."""

    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0


def build(options: Options, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """Return the network; inputs (n, channels, height, width), outputs (n, num_classes) logits."""
    return nn.Sequential(
        nn.Upsample((SIZE, SIZE), mode="nearest"),
        *_convolution(input_shape[0], 96, 11, stride=4, padding=1),
        nn.MaxPool2d(3, 2),
        *_convolution(96, 256, 5, padding=2),
        nn.MaxPool2d(3, 2),
        *_convolution(256, 384, 3, padding=1),
        *_convolution(384, 384, 3, padding=1),
        *_convolution(384, 256, 3, padding=1),
        nn.MaxPool2d(3, 2),
        nn.Flatten(),
        *_hidden(256 * 5 * 5, 4096, options.dropout),
        *_hidden(4096, 4096, options.dropout),
        nn.Linear(4096, num_classes),
    )


def _convolution(num_in: int, num_out: int, size: int, *, stride: int = 1, padding: int) -> list[nn.Module]:
    return [nn.Conv2d(num_in, num_out, size, stride=stride, padding=padding), nn.ReLU()]


def _hidden(num_in: int, num_out: int, dropout: float) -> list[nn.Module]:
    layers = [nn.Linear(num_in, num_out), nn.ReLU()]
    return [nn.Dropout(dropout), *layers] if dropout else layers
