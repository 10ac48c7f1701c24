"""Scalar products and lengths of long vectors, accumulated in float64 whatever the vectors are."""

import torch
from torch import Tensor

# Numbers converted at once: they stay in a core's cache, so that memory is read once and nothing is written.
_CACHED = 2**16


def dot(first: Tensor, second: Tensor) -> float:
    """Return the scalar product of two vectors of shape (dim,).

    Cost: on the CPU one pass over both. Elsewhere copies of both in float64.
    """
    if first.dtype == torch.float64 or first.device.type != "cpu":
        return float(torch.dot(first.double(), second.double()))
    parts = zip(first.split(_CACHED), second.split(_CACHED), strict=True)
    return float(torch.stack([torch.dot(one.double(), other.double()) for one, other in parts]).sum())


def norm(vector: Tensor) -> float:
    """Return the length of a vector of shape (dim,)."""
    return float(torch.linalg.vector_norm(vector, dtype=torch.float64))
