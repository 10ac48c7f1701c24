from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from data.hdf5 import FileRefused, open_guarded, refuse_hostile, sealed_image
from data.hdf5.guard import MAX_DEPTH


def external_link(file: h5py.File) -> None:
    file.create_group("train")["inputs"] = h5py.ExternalLink("/etc/passwd", "/")


def soft_link(file: h5py.File) -> None:
    file.create_group("train")["inputs"] = h5py.SoftLink("/train")


def external_storage(file: h5py.File) -> None:
    file.create_dataset("inputs", (100,), "u1", external=[("/etc/passwd", 0, 100)])


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((10,), "f4")
    layout[:] = h5py.VirtualSource("/tmp/elsewhere.h5", "x", (10,))
    file.create_virtual_dataset("inputs", layout)


def eight_terabytes(file: h5py.File) -> None:
    file.create_dataset("inputs", (10**12,), "f8", chunks=(1000,))


def eight_terabytes_unchunked(file: h5py.File) -> None:
    space = h5py.h5s.create_simple((10**12,))
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_LATE)
    h5py.h5d.create(file.id, b"inputs", h5py.h5t.IEEE_F64LE, space, properties)


def references(file: h5py.File) -> None:
    file.create_dataset("inputs", (1,), h5py.ref_dtype)


def variable_length(file: h5py.File) -> None:
    file.create_dataset("inputs", (1,), h5py.vlen_dtype(np.int32))


def object_in_a_record(file: h5py.File) -> None:
    file.create_dataset("inputs", (1,), np.dtype([("a", "f4"), ("b", h5py.vlen_dtype(np.int32))]))


def named_type(file: h5py.File) -> None:
    file["kind"] = np.dtype("f4")


def plugin_filter(file: h5py.File) -> None:
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((10,))
    properties.set_filter(32001, h5py.h5z.FLAG_OPTIONAL, ())
    h5py.h5d.create(file.id, b"inputs", h5py.h5t.IEEE_F64LE, h5py.h5s.create_simple((10,)), properties)


def cycle(file: h5py.File) -> None:
    inner = file.create_group("a/b")
    inner["c"] = file["a"]


def deep(file: h5py.File) -> None:
    file.create_group("/".join("g" * (MAX_DEPTH + 1)))


def huge_attribute(file: h5py.File) -> None:
    file.attrs["mean"] = np.zeros(200_000)


def many_attributes(file: h5py.File) -> None:
    for index in range(1001):
        file.attrs[str(index)] = index


HOSTILE: dict[Callable[[h5py.File], None], str] = {
    external_link: "/train/inputs is an external link",
    soft_link: "/train/inputs is a soft link",
    external_storage: "/inputs has external storage",
    virtual: "/inputs is a virtual data set",
    eight_terabytes: "declares 8000000000000 bytes for /inputs and stores 0",
    eight_terabytes_unchunked: "declares 8000000000000 bytes for /inputs and stores 0",
    references: "holds objects or references in /inputs",
    variable_length: "holds objects or references in /inputs",
    object_in_a_record: "holds objects or references in /inputs",
    named_type: "holds a named data type, /kind",
    plugin_filter: "needs filter 32001 for /inputs",
    cycle: "nests groups deeper",
    deep: "nests groups deeper",
    huge_attribute: "has an attribute of 1600000 bytes on /",
    many_attributes: "has 1001 attributes on /",
}


CASES = [
    pytest.param(build, libver, id=f"{build.__name__}-{libver}")
    for build in HOSTILE
    for libver in ("earliest", "latest")
    if (build, libver) != (huge_attribute, "earliest")  # which has no room for it
]


@pytest.mark.parametrize(("build", "libver"), CASES)
def test_hostile_files_are_refused(tmp_path: Path, build: Callable[[h5py.File], None], libver: str) -> None:
    path = tmp_path / "brought.h5"
    with h5py.File(path, "w", libver=libver) as file:
        build(file)
    with pytest.raises(FileRefused) as caught, open_guarded(path):
        pass
    assert str(caught.value).startswith(f"{path} ")
    assert HOSTILE[build] in str(caught.value)


def test_a_seal_does_not_make_a_hostile_file_good(tmp_path: Path) -> None:
    (tmp_path / "brought.h5").write_bytes(sealed_image(soft_link))
    with pytest.raises(FileRefused, match="soft link"), open_guarded(tmp_path / "brought.h5"):
        pass


def test_the_number_of_objects_is_bounded_where_groups_share_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with h5py.File(tmp_path / "folded.h5", "w") as file:
        inner = file.create_group("start")
        for level in range(MAX_DEPTH - 2):  # 2**30 paths in 31 groups
            outer = file.create_group(f"level{level}")
            outer["left"] = outer["right"] = inner
            inner = outer
    monkeypatch.setattr("data.hdf5.guard.MAX_OBJECTS", 2000)
    with pytest.raises(FileRefused, match="more than 2000 objects"), open_guarded(tmp_path / "folded.h5"):
        pass


def test_ordinary_content_passes() -> None:
    with h5py.File.in_memory() as file:
        file["numbers"] = np.arange(10)
        file["again"] = file["numbers"]  # a second hard link
        file["flag"] = True
        file["complex"] = np.ones(3, complex)
        file["nothing"] = h5py.Empty("f4")
        file["text"] = "grüße"
        file["texts"] = ["a", "bc"]
        file["record"] = np.zeros(3, [("a", "f4"), ("b", "S3")])
        file.create_dataset("lzf", data=np.arange(10), compression="lzf")
        file.create_dataset("backed", data=np.zeros(10_000), compression="gzip")
        refuse_hostile(file, Path("x.h5"))


def test_a_large_shape_passes_when_storage_explains_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data.hdf5.guard.MAX_UNBACKED_BYTES", 1000)
    with h5py.File.in_memory() as file:
        file["full"] = np.arange(1000.0)
        refuse_hostile(file, Path("x.h5"))
        file.create_dataset("bomb", (1000,), "f8", chunks=(10,))
        with pytest.raises(FileRefused, match="declares 8000 bytes for /bomb"):
            refuse_hostile(file, Path("x.h5"))


def test_a_damaged_structure_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "brought.h5"
    with h5py.File(path, "w") as file:
        file["train/inputs"] = np.arange(1000.0)
    content = path.read_bytes()
    assert content.count(b"HEAP") >= 2  # the names of the links
    path.write_bytes(content.replace(b"HEAP", b"HELP"))
    with pytest.raises(FileRefused, match=r"is damaged|cannot be opened"), open_guarded(path):
        pass
