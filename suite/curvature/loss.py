"""What the operators of a mean loss share: the pass over fixed examples, and graphs that all columns use."""

import copy
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Generic, Self, TypeVar

import torch
from torch import Tensor, nn

from suite.curvature.arithmetic import Execution, check_operands, tensor_cores
from suite.curvature.logits import Batches, Logits
from suite.curvature.symmetric import CountedOperator, flatten_weights, unflatten_weights
from suite.splits import Normalisation

if TYPE_CHECKING:
    from suite.curvature.memory import MemoryPlan

Graph = TypeVar("Graph")


class LossOperator(CountedOperator, Generic[Graph]):
    """A matrix that is a sum over examples, of which a batch's share is known by a graph and a vector.

    Every example has the same weight, so the split into batches changes nothing but rounding and memory. Weights are
    copied at construction: later changes of the model are not seen.

    Args:
        model: maps inputs to logits (batch, num_classes). Put in eval mode, otherwise left as it is.
        names: the prunable parameters by name; their order is the order of the coordinates.
        batches: a fixed pass: pairs of inputs (batch, ...) and class indices (batch,); sizes may differ. Read once
            here and once per product.
        dtype: type of vectors, products and arithmetic; floating inputs, parameters and buffers are converted.
        num_examples: what the sum of losses is divided by; None: the examples of all batches. Give it when these
            batches are one shard of the data, whose products add up over the shards.
        normalisation: applied to uint8 inputs batch by batch, so that pixels can stay pixels on the device.
        execution: how products are computed.

    Raises:
        ValueError: a name is unknown or repeated, there is no example, the logits carry no gradient to the weights,
            the network is not a fixed function of each single example (stochastic in eval mode, or normalising by
            the batch; the module is named), or the execution does not suit type and device.
    """

    def __init__(
        self,
        model: nn.Module,
        names: Sequence[str],
        batches: Batches,
        dtype: torch.dtype = torch.float32,
        *,
        num_examples: int | None = None,
        normalisation: Normalisation | None = None,
        execution: Execution = Execution(),  # noqa: B008  frozen
    ) -> None:
        self._logits = Logits(
            model,
            names,
            batches,
            dtype,
            kernels=execution.kernels(),
            normalisation=normalisation,
            channels_last=execution.channels_last,
        )
        self._weights = self._logits.weights
        super().__init__(sum(weight.numel() for weight in self._weights), dtype, self._logits.device)
        check_operands(execution.operands, dtype, self.device)
        self._execution = execution
        self._kept: list[Graph] | None = None
        self.plan: MemoryPlan | None = None  # what its runs will take, where somebody has planned it
        num_here = self._logits.num_examples
        self.num_examples = num_here if num_examples is None else num_examples
        if num_here == 0 or self.num_examples < num_here:
            raise ValueError(
                f"batches hold {num_here} of {self.num_examples} examples. Expected: at least 1, at most all."
            )

    def weights(self) -> Tensor:
        """Return the prunable weights in coordinate order, shape (dim,); a copy."""
        return flatten_weights(self._weights).detach()

    def state_bytes(self) -> int:
        """Return the size of the copies of parameters and buffers."""
        return self._logits.state_bytes()

    def few_inputs(self, num_examples: int) -> tuple[Tensor, Tensor]:
        """Return copies of at most num_examples of the first batch that has any, as they were given."""
        return self._logits.few_inputs(num_examples)

    def over(self, batches: Batches, *, keep_graphs: bool) -> Self:
        """Return the same operator over other examples, with the same weights in memory: to try what products take."""
        other = copy.copy(self)
        other._logits, other._kept, other.num_matvecs = self._logits.over(batches), None, 0
        other._execution = replace(self._execution, keep_graphs=keep_graphs)
        return other

    def first_pass(self, inputs: Tensor, targets: Tensor) -> Graph:
        """Do what does not depend on the vector, for one batch."""
        with torch.enable_grad():
            return self._graph(self._logits(inputs), targets)

    def _products(self, vectors: Tensor) -> Tensor:
        columns, shapes = vectors.t().contiguous(), [weight.shape for weight in self._weights]
        totals = torch.empty_like(columns)
        with tensor_cores(self._execution.operands, self.device):
            for batch, graph in enumerate(self._graphs()):
                for index, (column, total) in enumerate(zip(columns, totals, strict=True)):
                    retain = self._execution.keep_graphs or index + 1 < len(columns)
                    products = self._product(graph, unflatten_weights(column, shapes), retain=retain)
                    for part, product in zip(unflatten_weights(total, shapes), products, strict=True):
                        part.copy_(product) if batch == 0 else part.add_(product)
        return totals.t()

    def _graphs(self) -> Iterator[Graph]:
        if self._kept is not None:
            yield from self._kept
            return
        made: list[Graph] = []
        for inputs, targets in self._logits.batches():
            graph = self.first_pass(inputs, targets)
            if self._execution.keep_graphs:
                made.append(graph)
            yield graph
        if self._execution.keep_graphs:
            self._kept = made

    @abstractmethod
    def _graph(self, logits: Tensor, targets: Tensor) -> Graph:
        """Do what does not depend on the vector, once per batch."""

    @abstractmethod
    def _product(self, graph: Graph, parts: tuple[Tensor, ...], *, retain: bool) -> Sequence[Tensor]:
        """Return a batch's share of one product, one tensor per weight; the graph is needed again if retain."""
