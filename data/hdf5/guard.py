"""The guard: what an HDF5 file may hold before anything in it is read.

HDF5 can point outside itself (external links, external raw storage, virtual data sets: a file from a stranger then
returns bytes of any file its reader may open), can name code to load (filter plugins), and can declare terabytes in
a kilobyte. h5py follows all of it. The guard opens every object once, reads no data, and refuses the file.

It cannot protect against bytes crafted to crash the HDF5 library itself. Files of our own are safe from those by
their seal, which is verified before HDF5 sees a byte.

Source: CVE-2026-1669 (Keras) and the reports that followed it.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py

from data.hdf5.refusal import FileRefused, refusal

# What h5py raises for damaged or exotic content.
HDF5_ERRORS = (OSError, RuntimeError, KeyError, TypeError, ValueError, NotImplementedError)

MAX_DEPTH = 32  # a guess: several times what our own layouts need
MAX_OBJECTS = 1_000_000  # a guess: 10,000 cells of 50 objects are half of it; walking that many takes a minute
MAX_ATTRIBUTES = 1_000  # of one object
MAX_ATTRIBUTE_BYTES = 1 << 20  # the classic format cannot hold more than 64 KiB
MAX_UNBACKED_BYTES = 4 << 30  # a data set may declare more than this only when its storage explains it
MAX_EXPANSION = 1000  # deflate reaches about 1030 on constant data

# deflate, shuffle, fletcher32, szip, nbit, scale-offset and h5py's own lzf; any other filter is a plugin to load.
_FILTERS = frozenset({1, 2, 3, 4, 5, 6, 32000})
_LINKS = {h5py.h5l.TYPE_SOFT: "a soft link", h5py.h5l.TYPE_EXTERNAL: "an external link"}
_INSIDE = "Copy the data into the file itself."


def refuse_hostile(file: h5py.File, path: Path) -> None:
    """Refuse a file that is not a plain tree of numbers and text.

    Args:
        file: open for reading.
        path: named in the error.

    Raises:
        FileRefused: soft or external links, external or virtual storage, object or reference dtypes, plugin filters,
            declared sizes far beyond the stored ones, absurd depth or number of objects, unreadable structure.

    Cost: every object is opened once, about 0.1 ms each; no data are read.
    """
    num_objects = 1
    pending: list[tuple[str, Any, int]] = [("", file.id, 0)]
    try:
        while pending:
            name, group, depth = pending.pop()
            num_objects += len(group)
            _check_extent(path, name, depth, num_objects)
            _check_attributes(path, name, group)
            for child_name, child in _children(path, name, group):
                if isinstance(child, h5py.h5g.GroupID):
                    pending.append((child_name, child, depth + 1))
                elif isinstance(child, h5py.h5d.DatasetID):
                    _check_attributes(path, child_name, child)
                    _check_dataset(path, child_name, child)
                else:
                    raise refusal(path, f"holds a named data type, {child_name}", "groups and data sets only")
    except FileRefused:
        raise
    except HDF5_ERRORS as error:
        raise refusal(path, f"is damaged: {error}", "a readable HDF5 tree", "Fetch or write it again.") from error


def _check_extent(path: Path, name: str, depth: int, num_objects: int) -> None:
    # A group that holds itself has no end: the depth finds it, as the count finds a tree folded many times.
    if depth > MAX_DEPTH:
        wrong = f"nests groups deeper than {MAX_DEPTH} levels ({name[:80]}...)"
        raise refusal(path, wrong, f"at most {MAX_DEPTH} levels and no cycles")
    if num_objects > MAX_OBJECTS:
        raise refusal(path, f"holds more than {MAX_OBJECTS} objects", f"at most {MAX_OBJECTS}")


def _children(path: Path, name: str, group: Any) -> Iterator[tuple[str, Any]]:
    # The identifiers beneath h5py's classes: a link is judged before anything follows it, at half the time.
    for link_name in group:
        child_name = f"{name}/{link_name.decode('utf-8', 'surrogateescape')}"
        kind = group.links.get_info(link_name).type
        if kind != h5py.h5l.TYPE_HARD:
            wrong = f"{child_name} is {_LINKS.get(kind, 'an unknown link')}"
            raise refusal(path, f"refers elsewhere: {wrong}", "hard links only", _INSIDE)
        yield child_name, h5py.h5o.open(group, link_name)


def _check_attributes(path: Path, name: str, node: Any) -> None:
    num_attributes = h5py.h5a.get_num_attrs(node)
    if num_attributes > MAX_ATTRIBUTES:
        raise refusal(path, f"has {num_attributes} attributes on {name or '/'}", f"at most {MAX_ATTRIBUTES}")
    for index in range(num_attributes):
        size_bytes = h5py.h5a.open(node, index=index).get_storage_size()
        if size_bytes > MAX_ATTRIBUTE_BYTES:
            wrong = f"has an attribute of {size_bytes} bytes on {name or '/'}"
            raise refusal(path, wrong, f"at most {MAX_ATTRIBUTE_BYTES} bytes", "Store it as a data set.")


def _check_dataset(path: Path, name: str, dataset: Any) -> None:
    properties = dataset.get_create_plist()
    if properties.get_layout() == h5py.h5d.VIRTUAL:  # before its shape is asked for, which may open the sources
        raise refusal(path, f"refers elsewhere: {name} is a virtual data set", "data stored in this file", _INSIDE)
    if properties.get_external_count() > 0:
        raise refusal(path, f"refers elsewhere: {name} has external storage", "data stored in this file", _INSIDE)
    filters = {properties.get_filter(index)[0] for index in range(properties.get_nfilters())}
    if unknown := filters - _FILTERS:
        rule = "gzip, szip, lzf, shuffle or fletcher32"
        raise refusal(path, f"needs filter {min(unknown)} for {name}", rule, "Write it without.")
    dtype = dataset.dtype
    if dtype.hasobject and h5py.check_string_dtype(dtype) is None:
        raise refusal(path, f"holds objects or references in {name} ({dtype})", "numbers or UTF-8 text")
    _check_expansion(path, name, dataset, math.prod(dataset.shape or ()) * dtype.itemsize)


def _check_expansion(path: Path, name: str, dataset: Any, declared_bytes: int) -> None:
    if declared_bytes <= MAX_UNBACKED_BYTES:
        return
    stored_bytes = dataset.get_storage_size()
    if declared_bytes > MAX_EXPANSION * stored_bytes:
        wrong = f"declares {declared_bytes} bytes for {name} and stores {stored_bytes}"
        raise refusal(path, wrong, f"at most 4 GiB, or {MAX_EXPANSION} times the stored bytes")
