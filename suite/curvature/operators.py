"""Symmetric operators known by their products: the Hessian of a network's loss, and explicit matrices for tests."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from suite.curvature.determinism import refuse_nondeterministic


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


class HessianOperator(CountedOperator):
    """Hessian of the mean cross-entropy over fixed examples, with respect to the prunable weights alone.

    Double backward; per batch, the graph of the first backward pass is shared by all columns. Every example has the
    same weight, so the split into batches changes nothing but rounding and memory. Weights are copied at
    construction: later changes of the model are not seen. Products in TF32 are too coarse for small eigenvalues
    (their noise moves a sparsity limit by several thousandths): on CUDA devices switch it off.

    Args:
        model: maps inputs to logits (batch, num_classes). Put in eval mode, otherwise left as it is.
        names: the prunable parameters by name; their order is the order of the coordinates.
        batches: a fixed pass: pairs of inputs (batch, ...) and class indices (batch,); sizes may differ. Read once
            here and once per product.
        dtype: type of the arithmetic; floating inputs, parameters and buffers are converted.
        num_examples: what the sum of losses is divided by; None: the examples of all batches. Give it when these
            batches are one shard of the data, whose products add up over the shards.

    Raises:
        ValueError: a name is unknown or repeated, there is no example, the logits carry no gradient to the weights,
            or the network is not a fixed function of each single example (stochastic in eval mode, or normalising by
            the batch); the module is named.

    Cost: about 2 gradients of all examples per column with several columns at once, 3 alone; memory of one batch's
        double-backward graph.
    Source: Pearlmutter (1994), "Fast exact multiplication by the Hessian", Neural Computation 6.
    """

    def __init__(
        self,
        model: nn.Module,
        names: Sequence[str],
        batches: Sequence[tuple[Tensor, Tensor]],
        dtype: torch.dtype = torch.float32,
        *,
        num_examples: int | None = None,
    ) -> None:
        parameters = dict(model.named_parameters())
        _check_names(names, parameters)
        self._names = tuple(names)
        self._model = model
        self._batches = batches
        state = {**parameters, **dict(model.named_buffers())}
        self._fixed = {name: _converted(value, dtype) for name, value in state.items() if name not in self._names}
        self._weights = tuple(_converted(parameters[name], dtype).requires_grad_() for name in self._names)
        super().__init__(sum(weight.numel() for weight in self._weights), dtype, self._weights[0].device)
        num_here = sum(len(targets) for _, targets in batches)
        self.num_examples = num_here if num_examples is None else num_examples
        if num_here == 0 or self.num_examples < num_here:
            raise ValueError(
                f"batches hold {num_here} of {self.num_examples} examples. Expected: at least 1, at most all."
            )
        few_inputs = next(inputs for inputs, _ in batches if len(inputs))[:2]
        refuse_nondeterministic(model, lambda: self._logits(few_inputs))
        with torch.enable_grad():
            if not self._logits(few_inputs).requires_grad:
                raise ValueError(
                    f"The logits carry no gradient to {', '.join(self._names)}. "
                    "Expected: a network that uses its prunable weights and does not detach."
                )

    def weights(self) -> Tensor:
        """Return the prunable weights in coordinate order, shape (dim,); a copy."""
        return flatten_weights(self._weights).detach()

    def _logits(self, inputs: Tensor) -> Tensor:
        inputs = inputs.to(self.device, self.dtype if inputs.is_floating_point() else None)
        state = {**self._fixed, **dict(zip(self._names, self._weights, strict=True))}
        with sdpa_kernel(SDPBackend.MATH):  # the fused attention kernels have no second derivative
            logits: Tensor = functional_call(self._model, state, (inputs,))
        return logits

    def _products(self, vectors: Tensor) -> Tensor:
        total = torch.zeros_like(vectors)
        for inputs, targets in self._batches:
            with torch.enable_grad():
                loss_sum = functional.cross_entropy(self._logits(inputs), targets.to(self.device), reduction="sum")
                self._add_products(loss_sum / self.num_examples, vectors, total)
        return total

    def _add_products(self, loss: Tensor, vectors: Tensor, total: Tensor) -> None:
        gradients = torch.autograd.grad(loss, self._weights, create_graph=True, materialize_grads=True)
        shapes = [weight.shape for weight in self._weights]
        # A weight the loss does not reach, or only linearly, has a gradient without graph: its Hessian rows are zero.
        curved = [gradient.requires_grad for gradient in gradients]
        if not any(curved):
            return
        outputs = [gradient for gradient, keep in zip(gradients, curved, strict=True) if keep]
        for column in range(vectors.shape[1]):
            parts = unflatten_weights(vectors[:, column], shapes)
            cotangents = [part for part, keep in zip(parts, curved, strict=True) if keep]
            products = torch.autograd.grad(
                outputs,
                self._weights,
                grad_outputs=cotangents,
                retain_graph=column + 1 < vectors.shape[1],
                materialize_grads=True,
            )
            total[:, column] += flatten_weights(products)


def flatten_weights(tensors: Sequence[Tensor]) -> Tensor:
    """Join tensors of any shapes to one vector, in order, each in row-major order."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def unflatten_weights(vector: Tensor, shapes: Sequence[torch.Size]) -> tuple[Tensor, ...]:
    """Cut a vector back into tensors of the given shapes; the inverse of flatten_weights."""
    parts = torch.split(vector, [shape.numel() for shape in shapes])
    return tuple(part.reshape(shape) for part, shape in zip(parts, shapes, strict=True))


def _converted(value: Tensor, dtype: torch.dtype) -> Tensor:
    return value.detach().to(dtype if value.is_floating_point() else value.dtype, copy=True)


def _check_names(names: Sequence[str], parameters: dict[str, nn.Parameter]) -> None:
    unknown = sorted(set(names) - set(parameters))
    if unknown:
        raise ValueError(f"No parameters named {', '.join(unknown)}. Known: {', '.join(sorted(parameters))}.")
    repeated = sorted({name for name in names if list(names).count(name) > 1})
    if repeated:
        raise ValueError(f"Parameters named twice: {', '.join(repeated)}. Expected: each prunable parameter once.")
    if not names:
        raise ValueError("names holds 0 parameters. Expected: at least 1 prunable parameter.")
