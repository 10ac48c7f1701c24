"""Examples on a device: kept as they were stored, handed to a network as it takes them, batch by batch."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple, Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Normalisation:
    """What turns stored pixels into inputs: (pixel / 255 - mean) / std per channel, in float32.

    Attributes:
        mean, std: one number per channel, or one for all, of the pixels in [0, 1].
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return inputs of shape (n, channels, ...) as float32, the same bits on every device and in any batch."""
        # By a tensor and not by a number: CUDA multiplies by the reciprocal of a number, which rounds differently.
        inputs = pixels.to(torch.float32).div_(_along_channels((255.0,), pixels.ndim, pixels.device))
        inputs.sub_(_along_channels(self.mean, pixels.ndim, pixels.device))
        return inputs.div_(_along_channels(self.std, pixels.ndim, pixels.device))


class Split(NamedTuple):
    """Some examples on one device; uint8 pixels stay pixels there, a quarter of the size of floats.

    Attributes:
        inputs: shape (n, *shape): floats or whole numbers such as token ids, which a network takes as they are; or
            uint8 pixels with their normalisation.
        targets: shape (n,), int64, classes from 0.
        normalisation: what makes a network's inputs of pixels; None: inputs are taken as they are.
    """

    inputs: Tensor
    targets: Tensor
    normalisation: Normalisation | None = None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Return the shape of one example."""
        return tuple(self.inputs.shape[1:])

    @property
    def inputs_bytes(self) -> int:
        """Return the size of all inputs as they are stored."""
        return self.inputs.nbytes

    def network_inputs(self) -> Tensor:
        """Return all inputs as a network takes them; of pixels, four times their size."""
        return self.inputs if self.normalisation is None else self.normalisation(self.inputs)

    def part(self, index: Tensor | slice) -> "Split":
        """Return some of the examples, stored as these are."""
        if isinstance(index, slice):
            return self._replace(inputs=self.inputs[index], targets=self.targets[index])
        # a tenth of the time of inputs[index] for pixels on a CPU, which that copies one by one
        return self._replace(inputs=self.inputs.index_select(0, index), targets=self.targets.index_select(0, index))

    def parts(self, size: int) -> Iterator["Split"]:
        """Yield all examples in their order, `size` at a time; the last part may be smaller."""
        for each in slices(len(self.targets), size):
            yield self.part(each)

    def batches(self, order: Tensor, size: int | list[int]) -> Iterator["Split"]:
        """Yield the examples that an order (m,), m at least 1, names.

        size: of all batches, of which the last one may be smaller; or of each.
        """
        for index in torch.split(order.to(self.targets.device), size):
            yield self.part(index)

    def between(self, begin: int, end: int) -> "Split":
        """Return a run of the examples as they are stored; a view, which keeps all of them."""
        return self.part(slice(begin, end))

    def pairs(self, size: int) -> list[tuple[Tensor, Tensor]]:
        """Return (inputs, targets) of all parts in their order, to be gone through any number of times."""
        return [(inputs, targets) for inputs, targets, _ in self.parts(size)]


class Examples(Protocol):
    """Examples, wherever their inputs lie: a Split, or a StreamedSplit; the same parts bit for bit.

    Whoever needs all inputs as one tensor takes a part of all of them, and pays for it.
    """

    @property
    def targets(self) -> Tensor:
        """Return the classes (n,) on the device."""
        ...

    @property
    def normalisation(self) -> Normalisation | None:
        """Return what makes a network's inputs of pixels."""
        ...

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Return the shape of one example."""
        ...

    @property
    def inputs_bytes(self) -> int:
        """Return the size of all inputs as they are stored."""
        ...

    def part(self, index: Tensor | slice) -> Split:
        """Return some of the examples on the device."""
        ...

    def parts(self, size: int) -> Iterator[Split]:
        """Yield all examples in their order."""
        ...

    def batches(self, order: Tensor, size: int | list[int]) -> Iterator[Split]:
        """Yield the examples that an order names."""
        ...

    def between(self, begin: int, end: int) -> "Examples":
        """Return a run of the examples, where they are."""
        ...

    def pairs(self, size: int) -> Sequence[tuple[Tensor, Tensor]]:
        """Return (inputs, targets) of all parts, to be gone through any number of times."""
        ...


Splits = Mapping[str, Examples]  # "train", and "validation" and "test" where the data set has them


def slices(count: int, size: int) -> Iterator[slice]:
    """Yield what cuts `count` examples into parts of `size`; the last may be smaller."""
    for begin in range(0, count, size):
        yield slice(begin, min(begin + size, count))


@cache  # copied to a device once, because each copy from the host would make it wait
def _along_channels(numbers: tuple[float, ...], ndim: int, device: torch.device) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float32, device=device).reshape(-1, *(1,) * (ndim - 2))
