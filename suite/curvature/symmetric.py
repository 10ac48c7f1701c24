"""Symmetric operators known by their products: the protocol, what all of them share, and explicit matrices."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor


class SymmetricOperator(Protocol):
    """A real symmetric (dim, dim) matrix A of which only the products are known."""

    @property
    def dim(self) -> int:
        """Number of rows."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of vectors and products."""
        ...

    @property
    def device(self) -> torch.device:
        """Where vectors must lie."""
        ...

    @property
    def num_matvecs(self) -> int:
        """Products computed so far; a matrix product counts one per column."""
        ...

    def matvec(self, vector: Tensor) -> Tensor:
        """Return A v, shape (dim,) to (dim,)."""
        ...

    def matmat(self, vectors: Tensor) -> Tensor:
        """Return A V, shape (dim, k) to (dim, k)."""
        ...


class CountedOperator(ABC):
    """The shared part of all operators here: shape checks and the count of products.

    Args:
        dim: number of rows.
        dtype: floating-point type of vectors and products.
        device: where vectors must lie.
    """

    def __init__(self, dim: int, dtype: torch.dtype, device: torch.device) -> None:
        self.dim = dim
        self.dtype = dtype
        self.device = device
        self.num_matvecs = 0

    def matvec(self, vector: Tensor) -> Tensor:
        """Return A v, shape (dim,) to (dim,)."""
        if vector.ndim != 1:
            raise ValueError(f"vector has shape {tuple(vector.shape)}. Expected: ({self.dim},).")
        return self.matmat(vector.unsqueeze(1)).squeeze(1)

    def matmat(self, vectors: Tensor) -> Tensor:
        """Return A V, shape (dim, k) to (dim, k)."""
        if vectors.ndim != 2 or vectors.shape[0] != self.dim:
            raise ValueError(f"vectors have shape {tuple(vectors.shape)}. Expected: ({self.dim}, k).")
        self.num_matvecs += vectors.shape[1]
        return self._products(vectors)

    @abstractmethod
    def _products(self, vectors: Tensor) -> Tensor: ...


class DiagonalOperator(CountedOperator):
    """diag(eigenvalues), for tests with a chosen spectrum. eigenvalues: shape (dim,)."""

    def __init__(self, eigenvalues: Tensor) -> None:
        super().__init__(eigenvalues.shape[0], eigenvalues.dtype, eigenvalues.device)
        self._eigenvalues = eigenvalues

    def _products(self, vectors: Tensor) -> Tensor:
        return self._eigenvalues.unsqueeze(1) * vectors


class MatrixOperator(CountedOperator):
    """An explicit symmetric matrix, shape (dim, dim)."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__(matrix.shape[0], matrix.dtype, matrix.device)
        self._matrix = matrix

    def _products(self, vectors: Tensor) -> Tensor:
        return self._matrix @ vectors


def flatten_weights(tensors: Sequence[Tensor]) -> Tensor:
    """Join tensors of any shapes to one vector, in order, each in row-major order."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def unflatten_weights(vector: Tensor, shapes: Sequence[torch.Size]) -> tuple[Tensor, ...]:
    """Cut a vector back into tensors of the given shapes; the inverse of flatten_weights."""
    parts = torch.split(vector, [shape.numel() for shape in shapes])
    return tuple(part.reshape(shape) for part, shape in zip(parts, shapes, strict=True))
