"""Examples whose inputs stay in their file, for data sets that do not fit: the same batches, read one ahead.

Cost: decoding every chunk that a batch touches; tests/performance/bench_streaming.py measures it.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import overload

import numpy as np
import torch
from torch import Tensor

from data.hdf5 import StoredRows
from suite.splits import Normalisation, Split, slices

Index = Tensor | slice


@dataclass(frozen=True, eq=False)
class StreamedSplit:
    """Examples in a file, handed out on a device. What is handed out is what a Split of the same file hands out.

    Attributes:
        rows: the inputs of the whole split.
        targets: of these examples, on the device.
        normalisation: as in a Split.
        first: row of the first of these examples.
    """

    rows: StoredRows
    targets: Tensor
    normalisation: Normalisation | None = None
    first: int = 0

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Return the shape of one example."""
        return self.rows.shape[1:]

    @property
    def inputs_bytes(self) -> int:
        """Return the size of all inputs as a Split would hold them."""
        return len(self.targets) * int(np.prod(self.input_shape)) * self._dtype.itemsize

    def part(self, index: Index) -> Split:
        """Return some of the examples on the device.

        Raises:
            FileRefused: a chunk of the file cannot be read.

        Cost: every chunk that holds one of them is decoded once.
        """
        return self._on_device(index, self._read(index))

    def parts(self, size: int) -> Iterator[Split]:
        """Yield all examples in their order, `size` at a time; the next part is read meanwhile."""
        return self._read_ahead(slices(len(self.targets), size))

    def batches(self, order: Tensor, size: int | list[int]) -> Iterator[Split]:
        """Yield the examples that an order names, as a Split does; the next batch is read meanwhile."""
        here = order.cpu()  # once: asking a device for the rows of each batch would wait for the batch before
        return self._read_ahead(torch.split(here, size))

    def between(self, begin: int, end: int) -> "StreamedSplit":
        """Return a run of the examples, left in the file."""
        return replace(self, targets=self.targets[begin:end].clone(), first=self.first + begin)

    def pairs(self, size: int) -> Sequence[tuple[Tensor, Tensor]]:
        """Return (inputs, targets) of all parts in their order, read anew each time they are gone through."""
        return _Pairs(self, size)

    @property
    def _dtype(self) -> np.dtype[np.generic]:
        return np.dtype(np.float32) if self.rows.dtype.kind == "f" else self.rows.dtype

    def _read_ahead(self, indices: Iterable[Index]) -> Iterator[Split]:
        with ThreadPoolExecutor(1, "espalier-reader") as reader:
            coming: tuple[Index, Future[Tensor]] | None = None
            for index in indices:
                following = index, reader.submit(self._read, index)
                if coming is not None:
                    yield self._on_device(coming[0], coming[1].result())
                coming = following
            if coming is not None:
                yield self._on_device(coming[0], coming[1].result())

    def _read(self, index: Index) -> Tensor:
        """Read inputs into host memory, which a copy to a GPU need not wait for where it is pinned."""
        count = len(self.targets)
        rows: slice | np.ndarray
        if isinstance(index, slice):
            begin, end, step = index.indices(count)
            assert step == 1, "examples are streamed in runs, or one by one"
            rows, number = slice(self.first + begin, self.first + max(begin, end)), max(0, end - begin)
        else:
            rows = index.cpu().numpy()
            if len(rows) and not (rows.min() >= 0 and rows.max() < count):
                raise IndexError(f"examples {rows.min()} to {rows.max()} of {count}. Expected: 0 to {count - 1}.")
            rows, number = rows + self.first, len(rows)
        host = np.empty(0, self._dtype)
        shape, dtype = (number, *self.input_shape), torch.from_numpy(host).dtype
        inputs = torch.empty(shape, dtype=dtype, pin_memory=self.targets.is_cuda)
        self.rows.read(rows, inputs.numpy())
        return inputs

    def _on_device(self, index: Index, inputs: Tensor) -> Split:
        device = self.targets.device
        where = index if isinstance(index, slice) else index.to(device, non_blocking=True)
        return Split(inputs.to(device, non_blocking=True), self.targets[where], self.normalisation)


@dataclass(frozen=True, eq=False)
class _Pairs(Sequence[tuple[Tensor, Tensor]]):
    """All parts of some examples, read when they are asked for."""

    examples: StreamedSplit
    size: int

    def __len__(self) -> int:
        return -(-len(self.examples.targets) // self.size)

    @overload
    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]: ...

    @overload
    def __getitem__(self, index: slice) -> list[tuple[Tensor, Tensor]]: ...

    def __getitem__(self, index: int | slice) -> tuple[Tensor, Tensor] | list[tuple[Tensor, Tensor]]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        begin = range(len(self))[index] * self.size
        inputs, targets, _ = self.examples.part(slice(begin, begin + self.size))
        return inputs, targets

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return ((inputs, targets) for inputs, targets, _ in self.examples.parts(self.size))
