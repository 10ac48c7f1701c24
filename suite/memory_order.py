"""The memory order of images: networks of 2-d convolutions compute faster with the channels of a pixel side by side."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn


def is_convolutional(model: nn.Module) -> bool:
    """Return whether a network has 2-d convolutions, and so gains by the order (n, h, w, c)."""
    return any(isinstance(module, nn.Conv2d) for module in model.modules())


def in_order_of(model: nn.Module, weight: Tensor) -> Tensor:
    """Return a weight in the memory order in which a network computes: filters (n, h, w, c), or as it is."""
    is_filter = weight.ndim == 4 and is_convolutional(model)
    return weight.contiguous(memory_format=torch.channels_last) if is_filter else weight


@contextmanager
def channels_last(model: nn.Module) -> Iterator[bool]:
    """Within, keep the filters of a network of 2-d convolutions in the order (n, h, w, c); other networks stay.

    Afterwards every filter is in the memory it was in before, so that whoever holds a view of it sees the new values.

    Yields:
        Whether images should come in that order as well.

    Cost: one copy of the filters in memory, and one on the way in and out.
    """
    if not is_convolutional(model):
        yield False
        return
    moved: list[tuple[Tensor, Tensor]] = []
    for value in chain(model.parameters(), model.buffers()):
        if value.ndim == 4 and value.is_contiguous() and not value.is_contiguous(memory_format=torch.channels_last):
            moved.append((value, value.data))
            value.data = value.data.contiguous(memory_format=torch.channels_last)
    try:
        yield True
    finally:
        for value, before in moved:
            value.data = before.copy_(value.data)
