"""Scalar products and lengths of long vectors, accumulated in float64 whatever the vectors are."""

import math

import numpy as np
import torch
from torch import Tensor


def dot(first: Tensor, second: Tensor) -> float:
    """Return the scalar product of two vectors of shape (dim,).

    Raises:
        ValueError: they are of different lengths.

    Cost: on the CPU one pass over both: numpy converts a few numbers at a time, where torch would write, and read
        again, copies in float64. That took 4 times as long (3.9 million numbers, two threads). Elsewhere copies.
    """
    if len(first) != len(second):
        raise ValueError(f"vectors have {len(first)} and {len(second)} entries. Expected: equal numbers.")
    first, second = first.detach(), second.detach()
    if first.device.type != "cpu" or torch.bfloat16 in (first.dtype, second.dtype):
        return float(torch.dot(first.double(), second.double()))
    return float(np.einsum("i,i->", first.numpy(), second.numpy(), dtype=np.float64))


def norm(vector: Tensor) -> float:
    """Return the length of a vector of shape (dim,)."""
    return math.sqrt(dot(vector, vector))
