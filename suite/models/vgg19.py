"""VGG-19 for small images: 16 convolutions with batch normalisation, one linear layer; 20.0 M weights.

Source: Simonyan, Zisserman (2015), ICLR, configuration E, with the end of Su et al. (2020, Smart-Ratio): four
max-poolings, then the mean over the 2 x 2 pixels that are left of 32 x 32, or 4 x 4 of 64 x 64.
"""

from torch import nn

from suite.models import _vgg

VERSION = 1  # raise when the function computed from the same weights changes
Options = _vgg.Options


def build(options: _vgg.Options, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """Return the network; inputs (n, channels, height, width), outputs (n, num_classes) logits."""
    return _vgg.vgg((2, 2, 4, 4, 4), input_shape, num_classes, options, num_pools=4)
