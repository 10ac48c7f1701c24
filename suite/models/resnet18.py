"""ResNet-18: four stages of two basic blocks, 64 to 512 channels (He, Zhang, Ren, Sun 2016, CVPR); 11.2 M weights."""

from torch import nn

from suite.models._normalisation import without_scale_and_shift
from suite.models._resnet import Shortcut, Stem, basic_block, resnet, stem_layers
from suite.strict import Settings

VERSION = 1  # raise when the function computed from the same weights changes


class Options(Settings):
    """The stem ("3x3" for small images, "7x7" with max-pooling as published) and the kind of shortcut."""

    stem: Stem = "3x3"
    shortcut: Shortcut = "convolution"
    affine: bool = True  # scale and shift of normalisation; Rare Gems has none


def build(options: Options, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """Return the network; inputs (n, channels, height, width), outputs (n, num_classes) logits."""
    stem = stem_layers(options.stem, input_shape[0], 64)
    network = resnet(stem, basic_block, (64, 128, 256, 512), (2, 2, 2, 2), options.shortcut, num_classes)
    return network if options.affine else without_scale_and_shift(network)
