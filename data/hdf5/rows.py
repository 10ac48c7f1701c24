"""The rows of one stored array, read when they are asked for: of arrays that memory does not hold."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from data.hdf5.guard import HDF5_ERRORS
from data.hdf5.refusal import refusal

_BLOCK_BYTES = 4 << 20


class StoredRows:
    """An array in an open file, shape (n, ...): known by shape and dtype, read row by row.

    It can be read from any thread, by one at a time.

    Args:
        dataset: of numbers, with at least one dimension, in a file that was opened by `open_guarded`.
        opened: what closes the file. It is kept, and closes it once the last array that keeps it is gone.
    """

    def __init__(self, dataset: h5py.Dataset, opened: ExitStack) -> None:
        self._dataset, self._opened = dataset, opened
        self.shape: tuple[int, ...] = dataset.shape
        self.dtype: np.dtype[Any] = dataset.dtype.newbyteorder("=")
        self.ndim, self.size = len(self.shape), int(dataset.size)
        self.nbytes = self.size * self.dtype.itemsize
        self._rows_per_chunk: int = dataset.chunks[0] if dataset.chunks else 1

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, index: slice | npt.NDArray[np.int64], out: npt.NDArray[Any]) -> None:
        """Read rows, in the order of the index, into an array that they may have to be converted for.

        Args:
            index: a slice of step 1 with both ends, or row numbers from 0 in any order, repeated or not.
            out: shape (number of rows, ...), C-ordered.

        Raises:
            FileRefused: a chunk cannot be read, or does not match its checksum.

        Cost: every chunk that holds one of the rows is read and decoded once; memory for the rows of one chunk.
        """
        if isinstance(index, slice):
            out[...] = self._between(index.start, index.stop)
            return
        order = np.argsort(index, kind="stable")
        rows = index[order]
        ends = [*np.flatnonzero(np.diff(rows // self._rows_per_chunk)) + 1, len(rows)] if len(rows) else []
        begin = 0
        for end in ends:
            here = rows[begin:end]
            out[order[begin:end]] = self._between(int(here[0]), int(here[-1]) + 1)[here - here[0]]
            begin = end

    def blocks(self) -> Iterator[npt.NDArray[Any]]:
        """Yield all rows in their order, some whole chunks at a time, about 4 MiB."""
        chunk_bytes = self._rows_per_chunk * max(1, self.nbytes // max(1, len(self)))
        size = self._rows_per_chunk * max(1, _BLOCK_BYTES // chunk_bytes)
        for begin in range(0, len(self), size):
            yield self._between(begin, min(begin + size, len(self)))

    def _between(self, begin: int, end: int) -> npt.NDArray[Any]:
        rows = np.empty((end - begin, *self.shape[1:]), self.dtype)
        try:
            if rows.size:
                self._dataset.read_direct(rows, np.s_[begin:end])
        except HDF5_ERRORS as error:
            wrong = f"has unreadable rows {begin} to {end - 1} of {self._dataset.name}: {error}"
            rule = "chunks that match their checksums"
            raise refusal(Path(self._dataset.file.filename), wrong, rule, "Fetch or write it again.") from error
        return rows


def blocks(array: npt.NDArray[Any] | StoredRows) -> Iterator[npt.NDArray[Any]]:
    """Yield all rows of an array in their order: those of a file some at a time, those in memory at once."""
    if isinstance(array, StoredRows):
        yield from array.blocks()
    else:
        yield array
