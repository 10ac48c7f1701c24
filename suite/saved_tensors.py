"""Tensors on disk as plain numbers, a file each, for whatever goes on after a kill. Nothing is ever unpickled.

What reads them back is a sealed state that names them by their digest, and is written after them.

Two processes may save in one folder at once: a job that was queued again while its first copy lives, or the same
command twice. `LOCK` is the file by which they take turns where there are locks, and nothing hangs on it: no two saves
give a file the same name, and no file is removed that a state may yet name.
"""

import errno
import hashlib
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.hdf5 import FileRefused, commit_bytes, refusal

LOCK = ".lock"
_LOST_S = 24 * 3600.0  # no save takes so long: a file of this age that no state names was left by a kill
_DTYPES = {str(dtype): dtype for dtype in (torch.float16, torch.float32, torch.float64, torch.uint8)}


@contextmanager
def one_save(folder: Path, named: Callable[[], set[str]]) -> Iterator[str]:
    """Give a save a word of its own. If it fails, what was written with it goes: a full disk gets its room back.

    Args:
        folder: where `write_tensor` is called.
        named: returns the files that stay all the same, because a state was committed that names them.

    Yields:
        The word, for `write_tensor`.
    """
    writer = secrets.token_hex(4)
    try:
        yield writer
    except BaseException:
        with suppress(OSError, FileRefused):
            remove_tensors(folder, {name for name in tensor_names(folder) if name.endswith(f"-{writer}.bin")} - named())
        raise


def write_tensor(folder: Path, stem: str, writer: str, tensor: Tensor) -> dict[str, Any]:
    """Write one tensor in one step.

    Args:
        folder: exists.
        stem: begins the file's name, and is another one for each tensor of a save.
        writer: of `one_save`; ends the file's name.
        tensor: on the CPU, float16, float32, float64 or uint8, any shape.

    Returns:
        What `read_tensor` needs, for the state: name, sha256, shape and dtype.

    Raises:
        OSError: the disk is full or the folder cannot be written.

    Cost: one copy in memory, one digest, one sequential write.
    """
    name = f"{stem}-{writer}.bin"
    content = np.ascontiguousarray(tensor.numpy()).tobytes()
    commit_bytes(folder / name, content)
    digest = hashlib.sha256(content).hexdigest()
    return {"name": name, "sha256": digest, "shape": list(tensor.shape), "dtype": str(tensor.dtype)}


def read_tensor(folder: Path, piece: dict[str, Any]) -> Tensor:
    """Read a tensor back, on the CPU.

    Raises:
        FileRefused: the file is missing, or any of its bits is another one.
        OSError: it cannot be read.
    """
    path = folder / piece["name"]
    try:
        content = bytearray(path.read_bytes())
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ESTALE):  # removed, perhaps while it was read
            raise
        content = bytearray()
    if hashlib.sha256(content).hexdigest() != piece["sha256"]:
        raise refusal(path, "is missing or damaged", "the bytes that were saved", "Delete the folder and run again.")
    return torch.frombuffer(content, dtype=_DTYPES[piece["dtype"]]).reshape(piece["shape"])


def tensor_names(folder: Path) -> set[str]:
    """Return the names of all tensors there; a name that begins with a dot is what another process writes just now."""
    return {path.name for path in folder.glob("*.bin") if not path.name.startswith(".")}


def lost_tensors(folder: Path, state: Path) -> set[str]:
    """Return the names of tensors that go, unless a state names them: nobody can be about to.

    Args:
        folder: of states and tensors.
        state: just committed; its time is by the clock of the file system, as the tensors' times are.
    """
    found: set[str] = set()
    with suppress(OSError):  # another process may have removed it, having saved later ones
        committed_s = state.stat().st_mtime
        for name in tensor_names(folder):
            with suppress(OSError):
                if committed_s - (folder / name).stat().st_mtime > _LOST_S:
                    found.add(name)
    return found


def remove_tensors(folder: Path, names: set[str]) -> None:
    """Remove tensors; what cannot be removed is left."""
    for name in names & tensor_names(folder):  # a state is a file like any: it may name what lies elsewhere
        with suppress(OSError):
            (folder / name).unlink()
