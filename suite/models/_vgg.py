"""What the VGG networks for small images share: 3x3 convolutions in stages, and one linear layer."""

from collections.abc import Sequence

from torch import nn

from suite.models._normalisation import without_scale_and_shift
from suite.strict import Settings

WIDTHS = (64, 128, 256, 512, 512)  # one per stage


class Options(Settings):
    """Biases of the convolutions (LOMP and Smart-Ratio have them, Rare Gems not); scale and shift of normalisation."""

    biases: bool = False
    affine: bool = True


def vgg(
    num_layers: Sequence[int], input_shape: tuple[int, ...], num_classes: int, options: Options, *, num_pools: int
) -> nn.Module:
    """Return stages of convolution, batch normalisation and ReLU, then the mean over what is left, and a linear layer.

    The mean makes the linear layer 512 x num_classes for images of any size.

    Args:
        num_layers: convolutions per stage.
        input_shape: (channels, height, width), at least 2 ** num_pools pixels a side.
        num_classes: logits.
        options: see Options.
        num_pools: stages, from the first on, that end in a 2 x 2 max-pooling.
    """
    layers: list[nn.Module] = []
    num_in = input_shape[0]
    for stage, (width, count) in enumerate(zip(WIDTHS, num_layers, strict=True)):
        for _ in range(count):
            layers += [nn.Conv2d(num_in, width, 3, padding=1, bias=options.biases), nn.BatchNorm2d(width), nn.ReLU()]
            num_in = width
        if stage < num_pools:
            layers.append(nn.MaxPool2d(2))
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(num_in, num_classes))
    return network if options.affine else without_scale_and_shift(network)
