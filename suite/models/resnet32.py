"""ResNet-32 of double width for small images: three stages of five basic blocks, 32 to 128 channels; 1.86 M weights.

Source: He et al. (2016), with the widths and 1x1 shortcuts of Wang, Zhang, Grosse (2020, GraSP) and of Su et al. (2020,
Smart-Ratio).
"""

from typing import Annotated

from pydantic import Field
from torch import nn

from suite.models._normalisation import without_scale_and_shift
from suite.models._resnet import Shortcut, basic_block, resnet, stem_layers
from suite.strict import Settings

VERSION = 1  # raise when the function computed from the same weights changes


class Options(Settings):
    """Channels of the first stage (16 as in He et al.), the kind of shortcut, scale and shift of normalisation."""

    width: Annotated[int, Field(ge=1)] = 32
    shortcut: Shortcut = "convolution"
    affine: bool = True


def build(options: Options, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """Return the network; inputs (n, channels, height, width), outputs (n, num_classes) logits."""
    stem = stem_layers("3x3", input_shape[0], options.width)
    widths = (options.width, 2 * options.width, 4 * options.width)
    network = resnet(stem, basic_block, widths, (5, 5, 5), options.shortcut, num_classes)
    return network if options.affine else without_scale_and_shift(network)
