"""Where the Krylov basis of a Lanczos run lies: beside the vectors, in host memory, or with fewer bits per number.

A basis is as many vectors as there are Lanczos steps: 23.7 million weights, 128 steps and float32 are 12 GB. It is read
twice per step, rarely four times, and written once, so it may lie elsewhere, or coarser, than the two vectors the
recurrence works on.
"""

import logging
import math
import os
from dataclasses import dataclass

import torch
from torch import Tensor

from suite.curvature.reductions import norm

logger = logging.getLogger(__name__)

# Of a device's memory; the rest is for the network, its activations and the second backward pass. A guess.
_SHARE_OF_MEMORY = 0.5
BLOCK_ROWS = 8  # allocated together; of a rounded basis, widened together
_HALF = torch.float16


@dataclass(frozen=True)
class Placement:
    """Where a basis lies.

    Attributes:
        device: of the basis; the re-orthogonalisation is computed there.
        dtype: of its numbers. float16 stands for numbers scaled by sqrt(dim), so that entries are about 1: 11 bits
            where bfloat16 has 8. Measured on three networks for digits (4,464 and 6,464 weights), 128 steps: both
            limits moved by at most 0.0001. It needs eigenvectors that are spread over many weights: on a diagonal
            matrix an integral moved by 0.1. So it is the last resort.
    """

    device: torch.device
    dtype: torch.dtype


def choose_placement(
    dim: int,
    num_rows: int,
    dtype: torch.dtype,
    device: torch.device,
    *,
    device_bytes: float | None = None,
    host_bytes: float | None = None,
) -> Placement:
    """Choose where a basis of num_rows vectors lies; said in the log where it is not beside the vectors.

    On the CPU always beside the vectors and in their type. Elsewhere whole numbers on the device, else in host memory,
    else float16 on the device. By how much memory there is in all, not by what happens to be free, so that equal
    machines give equal numbers.

    Args:
        dim: length of the vectors.
        num_rows: the most vectors there will be.
        dtype: of the vectors.
        device: of the vectors.
        device_bytes: what bases may take on the device; None: see room_bytes.
        host_bytes: the same for host memory.
    """
    here = Placement(device, dtype)
    if device.type == "cpu":
        return here
    room = room_bytes(device) if device_bytes is None else device_bytes
    host_room = _host_room_bytes() if host_bytes is None else host_bytes
    needed = dim * rows_reserved(num_rows) * dtype.itemsize
    if needed <= room:
        return here
    chosen = Placement(torch.device("cpu"), dtype) if needed <= host_room else Placement(device, _HALF)
    logger.info(
        "Krylov basis of %d x %d: %.1f GiB do not fit %.1f GiB on %s; kept as %s on %s",
        num_rows, dim, needed / 2**30, room / 2**30, device, chosen.dtype, chosen.device,
    )  # fmt: skip
    return chosen


def room_bytes(device: torch.device) -> float:
    """Return how much of a device's memory bases may take: half of an accelerator's, without bound on the CPU."""
    if device.type == "cpu":
        return math.inf
    return _SHARE_OF_MEMORY * float(torch.cuda.get_device_properties(device).total_memory)


def _host_room_bytes() -> float:
    """Return half of host memory, shared out among the accelerators, each of which may have a process of its own."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return _SHARE_OF_MEMORY * total / max(1, torch.cuda.device_count())


class KrylovBasis:
    """Orthonormal vectors as the rows of a matrix that grows in place, BLOCK_ROWS at a time: no row is ever copied.

    Args:
        dim: length of the vectors.
        placement: where it lies.
        rows: storage to use instead of its own, shape (n, dim); it cannot grow.

    Cost: dim numbers per row, in whole blocks.
    """

    def __init__(self, dim: int, placement: Placement, rows: Tensor | None = None) -> None:
        self.placement = placement
        self.num_rows = 0
        self._dim = dim
        self._own = rows is None
        # Blocks lie where they lie however the basis grew, so that sums over rows are formed in one order.
        self._blocks: list[Tensor] = [] if rows is None else list(torch.split(rows, BLOCK_ROWS))
        self._scale = dim**0.5 if placement.dtype == _HALF else 1.0

    def reserve(self, num_rows: int) -> None:
        """Make room for num_rows rows in all."""
        capacity = sum(len(block) for block in self._blocks)
        if num_rows > capacity and not self._own:
            raise ValueError(f"basis has {capacity} rows, {num_rows} are needed. Expected: at least as many.")
        for _ in range(capacity, num_rows, BLOCK_ROWS):
            self._blocks.append(
                torch.empty((BLOCK_ROWS, self._dim), dtype=self.placement.dtype, device=self.placement.device)
            )

    def append(self, vector: Tensor, length: float = 1.0) -> None:
        """Add a vector of that length as one of length 1, rounded to the placement's type."""
        self.reserve(self.num_rows + 1)
        row = self._blocks[self.num_rows // BLOCK_ROWS][self.num_rows % BLOCK_ROWS]
        if self.placement == Placement(vector.device, vector.dtype):
            torch.div(vector, length, out=row)  # long vectors: memory of its own for the quotient costs more than it
        else:
            row.copy_(self._scale * (vector / length))
        self.num_rows += 1

    def orthogonalise(self, residual: Tensor) -> float:
        """Remove from residual its part in the span of all rows, in place, and return the length of what is left.

        Once or twice: twice is enough (Kahan, Parlett), and once is where more is left than was removed, because what
        a pass leaves in the span is a rounding of what it began with. Each pass is two products with the whole matrix.
        A coarse basis leaves per row a part of about its rounding over sqrt(dim), because roundings of different
        entries are independent.

        Source: Daniel, Gragg, Kaufman and Stewart (1976), "Reorthogonalization and stable algorithms for updating the
            Gram-Schmidt QR factorization", Mathematics of Computation 30.
        """
        removed, left = self._remove(residual), norm(residual)
        if not removed <= left:
            self._remove(residual)
            left = norm(residual)
        return left

    def _remove(self, residual: Tensor) -> float:
        """Remove it once; return the length of what was removed."""
        if self.placement == Placement(residual.device, residual.dtype):
            parts = torch.cat([block @ residual for block in self._filled()])
            for block, part in zip(self._filled(), torch.split(parts, BLOCK_ROWS), strict=True):
                residual.addmv_(block.T, part, alpha=-1.0)
            return norm(parts)
        return self._remove_elsewhere(residual)

    def _remove_elsewhere(self, residual: Tensor) -> float:
        """Widen one block at a time where it lies, so that sums are formed in the vectors' own type."""
        here = residual.to(self.placement.device)
        total = torch.zeros_like(here)
        for block in self._filled():
            wide = block.to(here.dtype)
            total.addmv_(wide.T, wide @ here)
        residual.sub_(total.to(residual.device), alpha=1.0 / self._scale**2)
        return norm(total) / self._scale**2

    def _filled(self) -> list[Tensor]:
        """Return the blocks without the rows that are not there yet."""
        begins = range(0, self.num_rows, BLOCK_ROWS)
        return [block[: self.num_rows - begin] for begin, block in zip(begins, self._blocks, strict=False)]

    @property
    def num_bytes(self) -> int:
        """Return what it takes where it was placed: nothing while it is parked."""
        return sum(block.nbytes for block in self._blocks if block.device == self.placement.device)

    def park(self) -> None:
        """Move the rows to host memory until `unpark`; the numbers stay the same."""
        self._blocks = [block.cpu() for block in self._blocks]

    def unpark(self) -> None:
        """Move the rows back to their place."""
        self._blocks = [block.to(self.placement.device) for block in self._blocks]

    def row(self, index: int) -> Tensor:
        """Return one vector as it is stored, in the placement's type and scale, shape (dim,)."""
        index = range(self.num_rows)[index]
        return self._blocks[index // BLOCK_ROWS][index % BLOCK_ROWS]

    def vector(self, index: int, like: Tensor) -> Tensor:
        """Return one vector at length 1, in the type and on the device of another tensor."""
        return self.row(index).to(like.device, like.dtype) / self._scale

    def stored(self, begin: int, end: int) -> Tensor:
        """Return rows begin to end as they are stored, shape (end - begin, dim), on the CPU."""
        rows = [self.row(index) for index in range(begin, end)]
        return torch.stack(rows).cpu() if rows else torch.empty((0, self._dim), dtype=self.placement.dtype)

    def restore(self, rows: Tensor) -> None:
        """Append rows that `stored` gave."""
        self.reserve(self.num_rows + len(rows))
        for row in rows:
            self._blocks[self.num_rows // BLOCK_ROWS][self.num_rows % BLOCK_ROWS] = row
            self.num_rows += 1


def rows_reserved(num_rows: int) -> int:
    """Return how many rows a basis of num_rows vectors takes."""
    return -(-num_rows // BLOCK_ROWS) * BLOCK_ROWS
