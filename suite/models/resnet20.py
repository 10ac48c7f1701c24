"""ResNet-20 for small images: three stages of three basic blocks, 16 to 64 channels (He et al. 2016)."""

from torch import nn

from suite.models._normalisation import without_scale_and_shift
from suite.models._resnet import Shortcut, basic_block, resnet, stem_layers
from suite.strict import Settings

VERSION = 1  # raise when the function computed from the same weights changes


class Options(Settings):
    """The kind of shortcut: "padding", as published ("option A"), or "convolution" (1x1, 2,560 more weights)."""

    shortcut: Shortcut = "padding"
    affine: bool = True  # scale and shift of normalisation; Rare Gems has none


def build(options: Options, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """Return the network; inputs (n, channels, height, width), outputs (n, num_classes) logits."""
    stem = stem_layers("3x3", input_shape[0], 16)
    network = resnet(stem, basic_block, (16, 32, 64), (3, 3, 3), options.shortcut, num_classes)
    return network if options.affine else without_scale_and_shift(network)
