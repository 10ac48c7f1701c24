"""VGG-16 for small images: 13 convolutions with batch normalisation, one linear layer; 14.7 M weights.

Source: Simonyan, Zisserman (2015), ICLR, configuration D, with one linear layer, as in LOMP and Rare Gems. Five
max-poolings leave one pixel of 32 x 32; of larger images the mean is taken, which the originals leave open.
"""

from torch import nn

from suite.models import _vgg

VERSION = 1  # raise when the function computed from the same weights changes
Options = _vgg.Options


def build(options: _vgg.Options, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """Return the network; inputs (n, channels, height, width), outputs (n, num_classes) logits."""
    return _vgg.vgg((2, 2, 3, 3, 3), input_shape, num_classes, options, num_pools=5)
