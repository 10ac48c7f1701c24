"""The Gauss-Newton matrix of a network's mean loss: the Hessian without the curvature of the network itself."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from suite.curvature.loss import LossOperator


class Linearisation(NamedTuple):
    """One batch's network as a linear map of its weights.

    Attributes:
        logits: shape (n, num_classes), with their graph.
        cotangent: shape (n, num_classes), a variable u.
        pulled_back: J'u per weight, with a graph to u, whose derivative along v is Jv.
        probabilities: shape (n, num_classes), of the model.
    """

    logits: Tensor
    cotangent: Tensor
    pulled_back: tuple[Tensor, ...]
    probabilities: Tensor


class GaussNewtonOperator(LossOperator[Linearisation]):
    """Gauss-Newton matrix of the mean cross-entropy over fixed examples: the mean of J'(diag p - pp')J.

    J is the Jacobian of one example's logits with respect to the prunable weights, p its softmax. Positive
    semidefinite; it is the Hessian without the curvature of the network itself, and for cross-entropy also the Fisher
    information with labels drawn from the model. Arguments and errors: see LossOperator.

    Cost: per column about 4/3 gradients of all examples, and one gradient per batch that all columns share; memory as
        the Hessian's.
    Source: Schraudolph (2002), "Fast curvature matrix-vector products for second-order gradient descent", Neural
        Computation 14.
    Differs: Jv comes from differentiating J'u with respect to u, not from a forward-mode pass: the same products per
        layer, on any network that has two derivatives.
    """

    def _graph(self, logits: Tensor, targets: Tensor) -> Linearisation:
        del targets  # the curvature of the cross-entropy does not depend on the class
        cotangent = torch.zeros_like(logits, requires_grad=True)
        pulled_back = torch.autograd.grad(
            logits, self._weights, grad_outputs=cotangent, create_graph=True, materialize_grads=True
        )
        return Linearisation(logits, cotangent, pulled_back, functional.softmax(logits.detach(), dim=1))

    def _product(self, graph: Linearisation, parts: tuple[Tensor, ...], *, retain: bool) -> Sequence[Tensor]:
        reached = [
            (pulled, part) for pulled, part in zip(graph.pulled_back, parts, strict=True) if pulled.requires_grad
        ]
        outputs, directions = zip(*reached, strict=True)
        with self._logits.for_cotangents():
            (tangent,) = torch.autograd.grad(outputs, graph.cotangent, grad_outputs=directions, retain_graph=True)
        weighted = graph.probabilities * tangent
        curved = weighted - graph.probabilities * weighted.sum(dim=1, keepdim=True)
        return torch.autograd.grad(
            graph.logits,
            self._weights,
            grad_outputs=curved / self.num_examples,
            retain_graph=retain,
            materialize_grads=True,
        )
