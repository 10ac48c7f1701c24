"""Rows of the Hessian: their L1 norms and diagonal entries, for chosen weights or one weight per magnitude percentile.

A row of norm zero belongs to a weight the loss does not see, one behind a unit that never fires for example; a row's
norm bounds how much its eigenvalues can be (Gershgorin). Source of the picture: Zhang, Zhang, Sun, Liu (2024), NeurIPS.
Differs: a row is averaged over all examples before absolute values are taken. The published norms sum the absolute
values of each mini-batch's row, which exceeds the norm of the mean, and are left in a unit of their own.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from suite.curvature.operators import SymmetricOperator
from suite.seeds import derived_seed


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
    block_size: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> RowNorms:
    """Compute the L1 norms and diagonal entries of chosen rows, exactly, from products with unit vectors.

    Args:
        operator: the matrix; symmetric, so that its columns are its rows.
        rows: shape (num_rows,), whole numbers in [0, dim); a row may stand more than once.
        block_size: rows per product; several share one first backward pass.
        progress: called with (rows done, rows in all) after each block.

    Raises:
        ValueError: rows or block_size are out of range.

    Cost: one matvec per row; block_size vectors of memory, twice.
    """
    indices = _checked(rows, operator.dim)
    if block_size < 1:
        raise ValueError(f"block_size={block_size} is too small. Expected: at least 1.")
    norms, diagonal = np.empty(len(indices)), np.empty(len(indices))
    for begin in range(0, len(indices), block_size):
        block = torch.from_numpy(indices[begin : begin + block_size]).to(operator.device)
        columns = torch.arange(len(block), device=operator.device)
        unit_vectors = torch.zeros((operator.dim, len(block)), dtype=operator.dtype, device=operator.device)
        unit_vectors[block, columns] = 1.0
        products = operator.matmat(unit_vectors)
        end = begin + len(block)
        norms[begin:end] = products.abs().sum(dim=0, dtype=torch.float64).cpu().numpy()
        diagonal[begin:end] = products[block, columns].double().cpu().numpy()
        if progress is not None:
            progress(end, len(indices))
    return RowNorms(indices, norms, diagonal, len(indices))


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
    block_size: int = 64,
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
