"""Rows of the Hessian: their L1 norms and diagonal entries, for chosen weights or one weight per magnitude percentile.

A row of norm zero belongs to a weight the loss does not see, one behind a unit that never fires for example; a row's
norm bounds how much its eigenvalues can be (Gershgorin). Source of the picture: Zhang, Zhang, Sun, Liu (2024), NeurIPS.
Differs: a row is averaged over all examples before absolute values are taken. The published norms sum the absolute
values of each mini-batch's row, which exceeds the norm of the mean, and are left in a unit of their own.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from suite.curvature.memory import in_units, num_columns
from suite.curvature.operators import SymmetricOperator
from suite.seeds import derived_seed

logger = logging.getLogger(__name__)

_MOST_ROWS = 64  # in one product


@dataclass(frozen=True, eq=False)
class RowNorms:
    """Norms of some rows of a symmetric matrix.

    Attributes:
        rows: shape (num_rows,), coordinates.
        l1_norms: shape (num_rows,), sums of absolute values, in the operator's units (for the Hessian of a mean loss:
            nats per squared weight).
        diagonal: shape (num_rows,), the diagonal entries, in the same units.
        num_matvecs: products paid for.
    """

    rows: NDArray[np.intp]
    l1_norms: NDArray[np.float64]
    diagonal: NDArray[np.float64]
    num_matvecs: int


@dataclass(frozen=True, eq=False)
class SampledRows:
    """One row per magnitude percentile.

    Attributes:
        magnitudes: shape (num_rows,), |w| of the rows' weights, not falling.
        norms: of these rows, in the same order.
    """

    magnitudes: NDArray[np.float64]
    norms: RowNorms

    def summary(self) -> dict[str, float]:
        """Return how many rows are zero, and the median and the largest norm."""
        norms = self.norms.l1_norms
        return {
            "num_zero_rows": int(np.count_nonzero(norms == 0.0)),
            "l1_norm_median": float(np.median(norms)),
            "l1_norm_max": float(norms.max()),
        }


def row_l1_norms(
    operator: SymmetricOperator,
    rows: ArrayLike,
    *,
    block_size: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> RowNorms:
    """Compute the L1 norms and diagonal entries of chosen rows, exactly, from products with unit vectors.

    Args:
        operator: the matrix; symmetric, so that its columns are its rows.
        rows: shape (num_rows,), whole numbers in [0, dim); a row may stand more than once.
        block_size: rows per product; several share one first backward pass. None: 64, or as many as fit beside the
            product by the operator's memory plan; changes rounding at most.
        progress: called with (rows done, rows in all) after each block.

    Raises:
        ValueError: rows or block_size are out of range.

    Cost: one matvec per row. Memory: 2 * block_size vectors beside what one product takes.
    """
    indices = _checked(rows, operator.dim)
    size = _num_rows(operator, len(indices)) if block_size is None else block_size
    if size < 1:
        raise ValueError(f"block_size={size} is too small. Expected: at least 1.")
    norms, diagonal = np.empty(len(indices)), np.empty(len(indices))
    for begin in range(0, len(indices), size):
        end = min(begin + size, len(indices))
        norms[begin:end], diagonal[begin:end] = _norms_and_diagonal(operator, torch.from_numpy(indices[begin:end]))
        if progress is not None:
            progress(end, len(indices))
    return RowNorms(indices, norms, diagonal, len(indices))


def _num_rows(operator: SymmetricOperator, num_wanted: int) -> int:
    """Return how many rows share a product; said in the log where memory makes them fewer."""
    wanted = max(1, min(_MOST_ROWS, num_wanted))
    size = num_columns(operator, wanted)
    if size < wanted:
        taken = in_units(2 * size * operator.dim * operator.dtype.itemsize)
        logger.info("curvature: %d rows of the Hessian at a time instead of %d, in %s", size, wanted, taken)
    return size


def _norms_and_diagonal(operator: SymmetricOperator, block: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute one block; a function of its own, so that nothing of it is left when the next one begins."""
    numbers, coordinates = torch.arange(len(block), device=operator.device), block.to(operator.device)
    unit_vectors = torch.zeros((len(block), operator.dim), dtype=operator.dtype, device=operator.device)
    unit_vectors[numbers, coordinates] = 1.0
    rows = operator.matmat(unit_vectors.t()).t()
    del unit_vectors
    # Two at a time: absolute values, and those in float64, are three times what is summed. A sum of one row alone would
    # be split among threads, which changes its last digit.
    norms = torch.cat([pair.abs().sum(dim=1, dtype=torch.float64) for pair in torch.split(rows, 2)])
    return norms.cpu().numpy(), rows[numbers, coordinates].double().cpu().numpy()


def percentile_rows(weights: ArrayLike, seed: int, num_percentiles: int = 100) -> NDArray[np.intp]:
    """Draw one coordinate from each percentile of |w|, evenly within it.

    Percentile j holds the ranks from j dim / num_percentiles up to, and without, (j + 1) dim / num_percentiles, rounded
    down; among equal magnitudes the lower index has the lower rank.

    Args:
        weights: shape (dim,), the prunable weights in the operator's order.
        seed: of the cell; the draw has a generator of its own.
        num_percentiles: at least 1, at most dim.

    Returns:
        Shape (num_percentiles,), all different, by growing magnitude.

    Raises:
        ValueError: the weights are no vector, or num_percentiles is out of range.
    """
    values = np.asarray(weights, dtype=np.float64)
    if values.ndim != 1 or not 1 <= num_percentiles <= values.size:
        raise ValueError(
            f"num_percentiles={num_percentiles} for weights of shape {values.shape}. "
            "Expected: weights (dim,) and 1 <= num_percentiles <= dim."
        )
    edges = np.arange(num_percentiles + 1) * values.size // num_percentiles
    ranks = np.random.default_rng(derived_seed(seed, "rows")).integers(edges[:-1], edges[1:])
    rows: NDArray[np.intp] = np.argsort(np.abs(values), kind="stable")[ranks]
    return rows


def sample_row_norms(
    operator: SymmetricOperator,
    weights: ArrayLike,
    seed: int,
    *,
    num_percentiles: int = 100,
    block_size: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> SampledRows:
    """Compute the norms of one row per magnitude percentile; see percentile_rows and row_l1_norms.

    Raises:
        ValueError: the number of weights is not the operator's dimension, or an argument is out of range.

    Cost: num_percentiles matvecs.
    """
    values = np.asarray(weights, dtype=np.float64)
    if values.shape != (operator.dim,):
        raise ValueError(f"weights have shape {values.shape}. Expected: ({operator.dim},).")
    rows = percentile_rows(values, seed, num_percentiles)
    norms = row_l1_norms(operator, rows, block_size=block_size, progress=progress)
    return SampledRows(np.abs(values[rows]), norms)


def _checked(rows: ArrayLike, dim: int) -> NDArray[np.intp]:
    indices = np.array(rows)
    if indices.ndim != 1 or not np.issubdtype(indices.dtype, np.integer):
        raise ValueError(f"rows have shape {indices.shape} and type {indices.dtype}. Expected: (num_rows,), whole.")
    outside = indices[(indices < 0) | (indices >= dim)]
    if outside.size:
        raise ValueError(f"Row {outside[0]} is out of range. Expected: 0 <= row < {dim}.")
    return indices.astype(np.intp)
