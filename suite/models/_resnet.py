"""What the residual networks share: stems, shortcuts, the two kinds of block, and the network around them."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Stem = Literal["3x3", "7x7"]
Shortcut = Literal["convolution", "padding"]


def convolution(num_in: int, num_out: int, size: int, stride: int = 1) -> nn.Conv2d:
    """Return a convolution without bias that keeps height and width, up to its stride."""
    return nn.Conv2d(num_in, num_out, size, stride=stride, padding=size // 2, bias=False)


class Padding(nn.Module):
    """The shortcut without weights ("option A"): every second pixel, and zero channels on both sides."""

    def __init__(self, num_in: int, num_out: int, stride: int) -> None:
        super().__init__()
        self._stride = stride
        self._num_before = (num_out - num_in) // 2
        self._num_after = num_out - num_in - self._num_before

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (n, num_in, h, w) to (n, num_out, h / stride, w / stride)."""
        kept = inputs[:, :, :: self._stride, :: self._stride]
        return functional.pad(kept, (0, 0, 0, 0, self._num_before, self._num_after))


def shortcut(kind: Shortcut, num_in: int, num_out: int, stride: int) -> nn.Module:
    """Return the identity where shapes agree, else the chosen kind."""
    if num_in == num_out and stride == 1:
        return nn.Identity()
    if kind == "padding":
        return Padding(num_in, num_out, stride)
    return nn.Sequential(convolution(num_in, num_out, 1, stride), nn.BatchNorm2d(num_out))


class Block(nn.Module):
    """relu(body(x) + shortcut(x)), of which the last ReLU is done here."""

    def __init__(self, body: nn.Sequential, bypass: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.shortcut = bypass

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (n, channels, h, w) to the block's channels and size."""
        outputs: Tensor = self.body(inputs) + self.shortcut(inputs)
        return torch.relu(outputs)


def basic_block(num_in: int, width: int, stride: int, kind: Shortcut) -> Block:
    """Return two 3x3 convolutions; the output has `width` channels."""
    body = nn.Sequential(
        convolution(num_in, width, 3, stride),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        convolution(width, width, 3),
        nn.BatchNorm2d(width),
    )
    return Block(body, shortcut(kind, num_in, width, stride))


def bottleneck_block(num_in: int, width: int, stride: int, kind: Shortcut) -> Block:
    """Return 1x1, 3x3 (with the stride) and 1x1 convolutions; the output has 4 `width` channels."""
    body = nn.Sequential(
        convolution(num_in, width, 1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        convolution(width, width, 3, stride),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        convolution(width, 4 * width, 1),
        nn.BatchNorm2d(4 * width),
    )
    return Block(body, shortcut(kind, num_in, 4 * width, stride))


def stem_layers(kind: Stem, num_in: int, width: int) -> list[nn.Module]:
    """Return the first layers: "3x3" keeps the size; "7x7" halves it twice, by its stride and by max-pooling."""
    if kind == "3x3":
        return [convolution(num_in, width, 3), nn.BatchNorm2d(width), nn.ReLU()]
    halved = [convolution(num_in, width, 7, 2), nn.BatchNorm2d(width), nn.ReLU()]
    return [*halved, nn.MaxPool2d(3, stride=2, padding=1)]


def resnet(
    stem: list[nn.Module],
    block: Callable[[int, int, int, Shortcut], Block],
    widths: Sequence[int],
    num_blocks: Sequence[int],
    kind: Shortcut,
    num_classes: int,
    expansion: int = 1,
) -> nn.Sequential:
    """Return the whole network: stem, one stage per width, of which all but the first halve the size, mean, linear.

    Args:
        stem: first layers, whose output has widths[0] channels.
        block: makes one block from its input channels, width, stride and kind of shortcut.
        widths: one per stage.
        num_blocks: one per stage.
        kind: of the shortcuts whose ends differ in shape.
        num_classes: logits.
        expansion: output channels of a block per width.
    """
    layers, num_in = list(stem), widths[0]
    for stage, (width, count) in enumerate(zip(widths, num_blocks, strict=True)):
        for index in range(count):
            stride = 2 if stage > 0 and index == 0 else 1
            layers.append(block(num_in, width, stride, kind))
            num_in = expansion * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(num_in, num_classes))
