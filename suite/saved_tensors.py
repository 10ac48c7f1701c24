"""Tensors on disk as plain numbers: a file each, and the facts by which it is read back. Nothing is ever unpickled."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.hdf5 import commit_bytes, refusal

_DTYPES = {str(dtype): dtype for dtype in (torch.float16, torch.float32, torch.float64, torch.uint8)}


def write_tensor(folder: Path, name: str, tensor: Tensor) -> dict[str, Any]:
    """Write one tensor in one step.

    Args:
        folder: exists.
        name: of the file; an existing one is replaced.
        tensor: on the CPU, float16, float32, float64 or uint8, any shape.

    Returns:
        What `read_tensor` needs, for a sealed file that is written after this one: name, sha256, shape and dtype.

    Raises:
        OSError: the disk is full or the folder cannot be written; nothing is left behind.

    Cost: one copy in memory, one digest, one sequential write.
    """
    content = np.ascontiguousarray(tensor.numpy()).tobytes()
    commit_bytes(folder / name, content)
    digest = hashlib.sha256(content).hexdigest()
    return {"name": name, "sha256": digest, "shape": list(tensor.shape), "dtype": str(tensor.dtype)}


def read_tensor(folder: Path, piece: dict[str, Any]) -> Tensor:
    """Read a tensor back, on the CPU.

    Raises:
        FileRefused: the file is missing, or any of its bits is another one.
    """
    path = folder / piece["name"]
    content = bytearray(path.read_bytes()) if path.exists() else bytearray()
    if hashlib.sha256(content).hexdigest() != piece["sha256"]:
        raise refusal(path, "is missing or damaged", "the bytes that were saved", "Delete the folder and run again.")
    return torch.frombuffer(content, dtype=_DTYPES[piece["dtype"]]).reshape(piece["shape"])
