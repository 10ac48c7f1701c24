"""An explicit matrix that knows the weights it belongs to, as a network's Hessian does."""

import numpy as np
import torch

from suite.curvature.operators import CountedOperator


class Weighted(CountedOperator):
    """The products of another operator, and the weights that a run from removed weights starts from: shape (dim,)."""

    def __init__(self, inner: CountedOperator, weights: np.ndarray) -> None:
        super().__init__(inner.dim, inner.dtype, inner.device)
        self._inner, self._weights = inner, torch.from_numpy(weights)

    def weights(self) -> torch.Tensor:
        return self._weights.clone()

    def _products(self, vectors: torch.Tensor) -> torch.Tensor:
        return self._inner.matmat(vectors)
