"""The Hessian of a network's mean loss, by differentiating its gradient."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from suite.curvature.loss import LossOperator


class HessianOperator(LossOperator[tuple[Tensor, ...]]):
    """Hessian of the mean cross-entropy over fixed examples, with respect to the prunable weights alone.

    Double backward; per batch, the forward and first backward pass are shared by all columns. Arguments and errors:
    see LossOperator. Products are in nats per squared weight unit per unit of the vector.

    Cost: with several columns at once 1.3 to 2.8 gradients of all examples each, by network (measured:
        tests/performance); memory of one batch's double-backward graph, and of the vectors and their products twice.
    Source: Pearlmutter (1994), "Fast exact multiplication by the Hessian", Neural Computation 6.
    Differs: convolutions, linear layers and batch norms have second derivatives of their own (suite.curvature.kernels);
        the paper differentiates forward along the vector, which needs the same products per layer.
    """

    def _graph(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        loss_sum = functional.cross_entropy(logits, targets, reduction="sum")
        return torch.autograd.grad(
            loss_sum / self.num_examples, self._weights, create_graph=True, materialize_grads=True
        )

    def _product(self, graph: tuple[Tensor, ...], parts: tuple[Tensor, ...], *, retain: bool) -> Sequence[Tensor]:
        # A weight the loss does not reach, or only linearly, has a gradient without graph: its Hessian rows are zero.
        curved = [(gradient, part) for gradient, part in zip(graph, parts, strict=True) if gradient.requires_grad]
        if not curved:
            return [torch.zeros_like(weight) for weight in self._weights]
        outputs, cotangents = zip(*curved, strict=True)
        return torch.autograd.grad(
            outputs, self._weights, grad_outputs=cotangents, retain_graph=retain, materialize_grads=True
        )
