"""ResNet-50: four stages of 3, 4, 6 and 3 bottleneck blocks, 256 to 2048 channels (He et al. 2016); 23.7 M weights."""

from torch import nn

from suite.models._normalisation import without_scale_and_shift
from suite.models._resnet import Stem, bottleneck_block, resnet, stem_layers
from suite.strict import Settings

VERSION = 1  # raise when the function computed from the same weights changes


class Options(Settings):
    """The stem: "3x3" for small images, "7x7" with max-pooling as published. Shortcuts are 1x1 convolutions."""

    stem: Stem = "3x3"
    affine: bool = True  # scale and shift of normalisation; Rare Gems has none


def build(options: Options, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """Return the network; inputs (n, channels, height, width), outputs (n, num_classes) logits."""
    stem = stem_layers(options.stem, input_shape[0], 64)
    widths, num_blocks = (64, 128, 256, 512), (3, 4, 6, 3)
    network = resnet(stem, bottleneck_block, widths, num_blocks, "convolution", num_classes, expansion=4)
    return network if options.affine else without_scale_and_shift(network)
