"""One Hessian product through espalier and through its peers, on the same network, data and vectors."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from suite.curvature.arithmetic import Execution
from suite.curvature.operators import HessianOperator
from suite.initialisation import initialise
from suite.network import build_model, model_spec, prunable_weights

Products = Callable[[Tensor], Tensor]  # (dim, k) to (dim, k)


@dataclass(frozen=True)
class Workload:
    """A network and one batch of data.

    Attributes:
        model: in eval mode; only its prunable weights require a gradient, so that no peer computes more.
        inputs: shape (n, channels, height, width).
        targets: shape (n,).
    """

    model: nn.Module
    inputs: Tensor
    targets: Tensor

    @property
    def weights(self) -> dict[str, nn.Parameter]:
        """The prunable weights by name."""
        return prunable_weights(self.model)

    def gradient(self) -> tuple[Tensor, ...]:
        """Return the gradient of the mean loss as a training loop computes it: the unit of all ratios."""
        loss = functional.cross_entropy(self.model(self.inputs), self.targets)
        return torch.autograd.grad(loss, list(self.weights.values()))

    def first(self, num_examples: int) -> "Workload":
        """Return the workload with fewer examples, in float64."""
        model = self.model.double()
        return Workload(model, self.inputs[:num_examples].double(), self.targets[:num_examples])


def workload(
    name: str,
    num_examples: int,
    input_shape: tuple[int, int, int] = (3, 32, 32),
    num_classes: int = 10,
    device: str = "cpu",
) -> Workload:
    """Build a network with random weights, its running statistics taken from the data, and random images."""
    model = build_model(model_spec(name, {}, input_shape, num_classes))
    initialise(model, "kaiming_normal", 0)
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randn((num_examples, *input_shape), generator=draw)
    targets = torch.randint(0, num_classes, (num_examples,), generator=draw)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = None  # a plain average: statistics of this data alone
    with torch.no_grad():
        model.train()(inputs[:64])
    model.requires_grad_(False)
    for weight in prunable_weights(model).values():
        weight.requires_grad_(True)
    return Workload(model.eval().to(device), inputs.to(device), targets.to(device))


def espalier(work: Workload, execution: Execution = Execution()) -> Products:  # noqa: B008  frozen
    """Our operator; the type of its arithmetic is the model's."""
    dtype = next(work.model.parameters()).dtype
    batches = [(work.inputs, work.targets)]
    return HessianOperator(work.model, list(work.weights), batches, dtype, execution=execution).matmat


def pyhessian(work: Workload, *, keep_graph: bool = False, batch_size: int | None = None) -> Products:
    """PyHessian, whose loop takes one vector at a time.

    Args:
        work: network and data.
        keep_graph: give it one batch, whose first backward pass it does once and for all; else a loader, as for data
            that are larger than one batch.
        batch_size: of the loader; None: one batch.
    """
    from pyhessian import hessian
    from pyhessian.utils import hessian_vector_product

    data: dict[str, Any] = {"data": (work.inputs, work.targets)}
    if not keep_graph:
        size = batch_size or len(work.targets)
        data = {"dataloader": list(zip(work.inputs.split(size), work.targets.split(size), strict=True))}
        work.model.zero_grad()
        functional.cross_entropy(work.model(work.inputs[:1]), work.targets[:1]).backward()  # it reads .grad at once
    computer = hessian(work.model, functional.cross_entropy, cuda=work.inputs.is_cuda, **data)
    shapes = [weight.shape for weight in computer.params]

    def product(vector: Tensor) -> Tensor:
        parts = vector.split([shape.numel() for shape in shapes])
        tensors = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
        if keep_graph:
            products = hessian_vector_product(computer.gradsH, computer.params, tensors)
        else:
            _, products = computer.dataloader_hv_product(tensors)
        return torch.cat([each.reshape(-1) for each in products])

    return lambda vectors: torch.stack([product(column) for column in vectors.t()]).t()


def curvlinops(work: Workload) -> Products:
    """curvlinops, which takes all vectors at once."""
    from curvlinops import HessianLinearOperator

    operator = HessianLinearOperator(
        work.model,
        nn.CrossEntropyLoss(),
        list(work.weights.values()),
        [(work.inputs, work.targets)],
        check_deterministic=False,
    )
    return lambda vectors: operator @ vectors


def disagreement(products: Tensor, reference: Tensor) -> float:
    """Return ||A - B|| / ||B||."""
    return float((products - reference).norm() / reference.norm())
