"""Arrays, text and attributes inside an HDF5 file, written one way and read with errors that name the place.

Storage: shuffle, gzip 4 and a fletcher32 checksum per chunk, which every HDF5 reader understands, browsers included.
Floats that gzip would hardly shrink, such as a dense network's weights, are left uncompressed: at 30 MB/s gzip takes
longer than a short training does, for a seventh of the size.
Text is UTF-8. Reading is meant for files opened by `open_sealed` or `open_guarded`.
"""

import errno
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from data.hdf5.guard import HDF5_ERRORS
from data.hdf5.refusal import FileRefused, refusal
from data.hdf5.rows import StoredRows

_CHUNK_BYTES = 1 << 20  # h5py's default chunk cache holds one such chunk
_RESERVE_BYTES = 1 << 20  # beside the rows themselves: more than the index of their chunks grows by
_GZIP_LEVEL = 4  # beyond it, time grows and size hardly shrinks
_SAMPLE_BYTES = 1 << 16  # tried on the middle of large arrays of floats
_WORTH_COMPRESSING = 0.75  # of the size, at most, must be left of it; weights keep 0.86, at half of them zero 0.5
_MAX_LISTED = 20
_KINDS = {"f": "floating point", "i": "signed integer", "u": "unsigned integer", "b": "boolean", "c": "complex"}


def write_array(group: h5py.Group, name: str, array: npt.ArrayLike, /, **attributes: Any) -> None:
    """Write numbers as one data set, checksummed and compressed unless it is a scalar or empty.

    Args:
        group: open for writing.
        name: new in the group.
        array: booleans, integers, floats or complex numbers, any shape.
        **attributes: small facts stored with it, such as unit="nats".

    Raises:
        TypeError: the array holds something else, for which `write_text` and `write_texts` may be right.
    """
    values = np.asarray(array)
    if values.dtype.kind not in "biufc":
        raise TypeError(f"array {name!r} has dtype {values.dtype}. Expected: numbers or booleans (text: write_texts).")
    _create(group, name, values, attributes)


def write_rows(
    group: h5py.Group,
    name: str,
    blocks: Iterable[npt.NDArray[Any]],
    shape: tuple[int, ...],
    dtype: npt.DTypeLike,
    /,
    *,
    chunk_bytes: int = _CHUNK_BYTES,
) -> None:
    """Write numbers that do not fit in memory as one data set, stored as `write_array` does.

    Args:
        group: of a file on disk, open for writing.
        name: new in the group.
        blocks: arrays of any number of rows each, in order; together they have the shape.
        shape: of the whole, (rows, ...), none of it empty.
        dtype: of numbers.
        chunk_bytes: the most that a chunk holds. A chunk is what a reader has to decode for one row.

    Raises:
        ValueError: the blocks have more or fewer rows than the shape.
        OSError: disk full. It is noticed before HDF5 is asked, which does not survive it.

    Cost: two blocks of memory.
    """
    dtype = np.dtype(dtype)
    chunks = _chunk_shape(shape, dtype.itemsize, chunk_bytes)
    dataset = group.create_dataset(name, shape, dtype, track_times=False, **_storage(chunks))
    first = 0
    for rows in _whole_chunks(blocks, chunks[0], shape, dtype):
        if first + len(rows) <= shape[0]:
            _reserve(group.file, rows.nbytes)
            dataset[first : first + len(rows)] = rows
        first += len(rows)
    if first != shape[0]:
        raise ValueError(f"{name!r} got {first} rows. Expected: {shape[0]}.")


def write_text(group: h5py.Group, name: str, text: str, /) -> None:
    """Write one text of any length as a scalar data set.

    Raises:
        ValueError: the text holds a NUL character, at which HDF5 would cut it.
    """
    group.create_dataset(name, data=text, dtype=h5py.string_dtype("utf-8"), track_times=False)


def write_texts(group: h5py.Group, name: str, texts: Sequence[str], /, **attributes: Any) -> None:
    """Write a column of texts, shape (len(texts),), each padded to the longest, checksummed and compressed.

    Raises:
        ValueError: a text holds a NUL character, which the padding could not be told from.
    """
    encoded = [text.encode("utf-8") for text in texts]
    if any(b"\0" in text for text in encoded):
        raise ValueError(f"A text in {name!r} holds a NUL character. Expected: text without it.")
    length_bytes = max((len(text) for text in encoded), default=0) or 1
    _create(group, name, np.array(encoded, dtype=h5py.string_dtype("utf-8", length_bytes)), attributes)


def read_array(
    group: h5py.Group, name: str, *, dtype_kind: str | None = None, ndim: int | None = None
) -> npt.NDArray[Any]:
    """Read one data set of numbers into memory, in native byte order.

    Args:
        group: of a guarded file.
        name: may be a path such as "train/inputs".
        dtype_kind: numpy's kind letters that are accepted, such as "f" or "iu"; None accepts all numbers.
        ndim: number of dimensions that is accepted; None accepts all.

    Raises:
        FileRefused: missing (the data sets present are listed), text, another kind or ndim, failed checksum.
    """
    dataset = _numbers(group, name, dtype_kind, ndim)
    array = np.asarray(_read(dataset, dataset))
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def stored_rows(group: h5py.Group, name: str, opened: ExitStack) -> StoredRows:
    """Return one data set of numbers, to be read row by row while the file is open; see StoredRows.

    Raises:
        FileRefused: missing, text, or a scalar.
    """
    dataset = _numbers(group, name, None, None)
    if not dataset.ndim:
        raise refusal(_path(group), f"has {dataset.name} of shape {dataset.shape}", "at least 1 dimension")
    return StoredRows(dataset, opened)


def read_text(group: h5py.Group, name: str) -> str:
    """Read one text that `write_text` wrote, or any scalar UTF-8 string.

    Raises:
        FileRefused: missing, not a text, not UTF-8.
    """
    dataset = _dataset(group, name)
    if h5py.check_string_dtype(dataset.dtype) is None or dataset.shape != ():
        raise refusal(_path(group), f"has {dataset.name} of dtype {dataset.dtype}, shape {dataset.shape}", "one text")
    return str(_read(dataset, dataset.asstr()))


def read_texts(group: h5py.Group, name: str) -> list[str]:
    """Read a column of texts that `write_texts` wrote, or any one-dimensional data set of UTF-8 strings.

    Raises:
        FileRefused: missing, not texts, not one-dimensional, not UTF-8, failed checksum.
    """
    dataset = _dataset(group, name)
    if h5py.check_string_dtype(dataset.dtype) is None or dataset.shape is None or dataset.ndim != 1:
        wrong = f"has {dataset.name} of dtype {dataset.dtype}, shape {dataset.shape}"
        raise refusal(_path(group), wrong, "a column of texts")
    return [str(text) for text in _read(dataset, dataset.asstr())]


def read_attribute(node: h5py.Group | h5py.Dataset, name: str) -> str | npt.NDArray[Any] | None:
    """Read one attribute: text as str, numbers as an array (shape () for one number), None when there is none.

    Raises:
        FileRefused: neither text nor numbers, or unreadable.
    """
    if name not in node.attrs:
        return None
    try:
        value = node.attrs[name]
        if isinstance(value, bytes):
            return value.decode("utf-8")
    except HDF5_ERRORS as error:
        raise refusal(_path(node), f"has an unreadable attribute {name!r} of {node.name}: {error}", "text") from error
    if isinstance(value, str):
        return value
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise refusal(_path(node), f"has attribute {name!r} of {node.name} of dtype {array.dtype}", "numbers or text")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _create(group: h5py.Group, name: str, values: npt.NDArray[Any], attributes: dict[str, Any]) -> None:
    storage: dict[str, Any] = {}
    if values.ndim > 0 and values.size > 0:
        chunks = _chunk_shape(values.shape, values.dtype.itemsize)
        storage = _storage(chunks, is_compressed=_is_worth_compressing(values))
    dataset = group.create_dataset(name, data=values, track_times=False, **storage)
    for key in sorted(attributes):  # their order is visible in the bytes
        dataset.attrs[key] = attributes[key]


def _storage(chunks: tuple[int, ...], *, is_compressed: bool = True) -> dict[str, Any]:
    storage: dict[str, Any] = {"chunks": chunks, "fletcher32": True}
    if is_compressed:
        storage |= {"shuffle": True, "compression": "gzip", "compression_opts": _GZIP_LEVEL}
    return storage


def _whole_chunks(
    blocks: Iterable[npt.NDArray[Any]], chunk_rows: int, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> Iterator[npt.NDArray[Any]]:
    """Yield the same rows, cut where chunks end: a chunk that is written twice is compressed and placed twice."""
    rest = np.empty((0, *shape[1:]), dtype)
    for block in blocks:
        rows = np.concatenate([rest, block])
        num_whole = len(rows) - len(rows) % chunk_rows
        if num_whole:
            yield rows[:num_whole]
        rest = rows[num_whole:]
    if len(rest):
        yield rest


def _reserve(file: h5py.File, num_bytes: int) -> None:
    """Have the system set aside the room for what is written next, or say that there is none.

    HDF5 cannot close a file whose writes fail: the process dies at its end.
    """
    end = file.id.get_filesize()
    try:
        os.posix_fallocate(file.id.get_vfd_handle(), end, num_bytes + num_bytes // 64 + _RESERVE_BYTES)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # some file systems have no such call
            raise OSError(error.errno, error.strerror, file.filename) from error


def _is_worth_compressing(values: npt.NDArray[Any]) -> bool:
    """Return whether gzip shrinks an array, by a sample of it where it is large and holds floats."""
    if values.dtype.kind != "f" or values.nbytes <= 16 * _SAMPLE_BYTES:
        return True
    num_sampled = _SAMPLE_BYTES // values.dtype.itemsize
    begin = (values.size - num_sampled) // 2
    sample = np.ascontiguousarray(values).reshape(-1)[begin : begin + num_sampled]
    shuffled = sample.view(np.uint8).reshape(num_sampled, -1).T.tobytes()
    return len(zlib.compress(shuffled, _GZIP_LEVEL)) < _WORTH_COMPRESSING * _SAMPLE_BYTES


def _chunk_shape(shape: tuple[int, ...], item_bytes: int, chunk_bytes: int = _CHUNK_BYTES) -> tuple[int, ...]:
    """Fill one chunk from the last axis on, so that a chunk is a contiguous run of whole rows where it can be."""
    budget = max(1, chunk_bytes // item_bytes)
    chunk: list[int] = []
    for length in reversed(shape):
        chunk.insert(0, max(1, min(length, budget)))
        budget //= chunk[0]
    return tuple(chunk)


def _dataset(group: h5py.Group, name: str) -> Any:
    try:
        node = group.get(name)
    except HDF5_ERRORS as error:
        raise refusal(_path(group), f"has an unreadable {name!r} in {group.name}: {error}", "a data set") from error
    if isinstance(node, h5py.Dataset):
        return node
    parent = group.get(name.rpartition("/")[0] or ".") if "/" in name else group
    members = sorted(parent) if isinstance(parent, h5py.Group) else sorted(group)
    listed = ", ".join(members[:_MAX_LISTED]) + (", ..." if len(members) > _MAX_LISTED else "") or "nothing"
    wrong = f"has no data set {name!r} in {group.name}"
    raise refusal(_path(group), wrong, f"a data set {name!r}", f"Present: {listed}.")


def _numbers(group: h5py.Group, name: str, dtype_kind: str | None, ndim: int | None) -> Any:
    dataset = _dataset(group, name)
    where = f"has {dataset.name} of"
    if dataset.dtype.kind not in (dtype_kind or "biufcV") or dataset.dtype.hasobject or dataset.shape is None:
        kinds = " or ".join(_KINDS.get(kind, kind) for kind in dtype_kind or "") or "numbers"
        raise refusal(_path(group), f"{where} dtype {dataset.dtype}", kinds)
    if ndim is not None and dataset.ndim != ndim:
        raise refusal(_path(group), f"{where} shape {dataset.shape}", f"{ndim} dimensions")
    return dataset


def _read(dataset: Any, view: Any) -> Any:
    try:
        return view[()]
    except FileRefused:
        raise
    except HDF5_ERRORS as error:
        wrong = f"has an unreadable {dataset.name}: {error}"
        raise refusal(_path(dataset), wrong, "chunks that match their checksums", "Fetch or write it again.") from error


def _path(node: Any) -> Path:
    return Path(node.file.filename)
