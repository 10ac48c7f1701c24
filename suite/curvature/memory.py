"""What memory a curvature run will need, known before it starts, and how many examples a batch may have."""

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from suite.curvature.loss import LossOperator

MAX_EXAMPLES_PER_BATCH = 2048
CPU_BUDGET_BYTES = (
    4 * 2**30
)  # of graphs, per process; a constant, and not what is free: sums, and so results, depend on the batch size
DEVICE_FRACTION = 0.8  # of a device's whole memory; the rest is for kernels' workspaces and fragmentation
# A second pass holds, beside the graph, the cotangents on their way. Measured on the CPU, as a fraction of the graph:
# 0.1 to 0.6 (ResNet-20, FC5; Hessian and Gauss-Newton; 1 and 4 vectors).
_SECOND_PASS_FRACTION = 0.6
_KEPT_SHARE = 0.5  # of what is free: the rest is for Lanczos bases, of which a plan may not know
_SMALL_BATCH = 2


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes of a curvature run at its peak, part by part.

    Attributes:
        weights_bytes: the operator's copy of the parameters and buffers.
        vectors_bytes: the vectors of one product and their results, in both orders of storage.
        basis_bytes: the Lanczos basis, dim times steps per run held at once.
        data_bytes: the data set as it lies on the device.
        graph_bytes_per_example: what the first two passes over a network save for the third.
        examples_per_batch: chosen so that all fits.
        num_kept_examples: whose graphs are kept from product to product: all, or none where that takes too much.
    """

    weights_bytes: int
    vectors_bytes: int
    basis_bytes: int
    data_bytes: int
    graph_bytes_per_example: int
    examples_per_batch: int
    num_kept_examples: int = 0

    @property
    def graph_bytes(self) -> int:
        """The graphs held at once, and the cotangents of one batch's second pass."""
        held = max(self.num_kept_examples, self.examples_per_batch)
        return int(self.graph_bytes_per_example * (held + _SECOND_PASS_FRACTION * self.examples_per_batch))

    @property
    def peak_bytes(self) -> int:
        """All parts together."""
        parts = (self.weights_bytes, self.vectors_bytes, self.basis_bytes, self.data_bytes, self.graph_bytes)
        return sum(parts)

    def __str__(self) -> str:
        values = {each.name.removesuffix("_bytes"): getattr(self, each.name) for each in fields(self)[:4]}
        values["graph"] = self.graph_bytes
        parts = ", ".join(f"{name} {value / 2**20:.1f}" for name, value in values.items())
        kept = ", graphs kept" if self.num_kept_examples else ""
        return f"{self.peak_bytes / 2**20:.1f} MiB ({parts}; {self.examples_per_batch} examples per batch{kept})"


def memory_plan(
    operator: LossOperator[Any],
    num_examples: int,
    *,
    num_vectors: int = 1,
    num_lanczos_steps: int = 0,
    data_bytes: int = 0,
    budget_bytes: int | None = None,
) -> MemoryPlan:
    """Measure an operator's graph on two examples and choose the largest batch that fits.

    The choice is a function of shapes, of the device's kind and of the arguments, never of what is free at the moment,
    so that a run repeated on the same hardware gives the same bytes. It is a power of two, so that a few bytes more
    or less per example change nothing.

    Args:
        operator: on any number of examples; two of the first batch are used.
        num_examples: in the whole pass.
        num_vectors: of one product.
        num_lanczos_steps: rows of the basis; 0: none is held.
        data_bytes: of the data set on the device.
        budget_bytes: of all parts; None: see budget, which on the CPU is for the graphs alone: host memory holds what
            it can hold, and only the graphs grow with the batch.

    Raises:
        ValueError: what does not depend on the batch, and one example, are above the budget.

    Cost: one first pass over two examples and one over four.
    """
    itemsize = torch.empty((), dtype=operator.dtype).element_size()
    weights_bytes = operator.state_bytes()
    vectors_bytes = 4 * num_vectors * operator.dim * itemsize
    basis_bytes = num_lanczos_steps * operator.dim * itemsize
    per_example = graph_bytes_per_example(operator)
    total = budget(operator.device) if budget_bytes is None else budget_bytes
    is_for_graphs = budget_bytes is None and operator.device.type != "cuda"
    free = total if is_for_graphs else total - weights_bytes - vectors_bytes - basis_bytes - data_bytes
    fitting = int(free / (per_example * (1 + _SECOND_PASS_FRACTION)))
    if fitting < 1:
        raise ValueError(
            f"A curvature run needs {(total - free + per_example) / 2**30:.2f} GiB with one example per batch, of "
            f"{total / 2**30:.2f} GiB. Expected: fewer Lanczos steps or vectors, or a device with more memory."
        )
    chosen = min(MAX_EXAMPLES_PER_BATCH, 2 ** (fitting.bit_length() - 1), num_examples)
    kept_bytes = per_example * (num_examples + _SECOND_PASS_FRACTION * chosen)
    num_kept = num_examples if kept_bytes <= _KEPT_SHARE * free else 0
    return MemoryPlan(weights_bytes, vectors_bytes, basis_bytes, data_bytes, per_example, chosen, num_kept)


def budget(device: torch.device) -> int:
    """Return how many bytes a run may use: a constant on the CPU, a fraction of the whole memory of other devices."""
    if device.type != "cuda":
        return CPU_BUDGET_BYTES
    return int(DEVICE_FRACTION * torch.cuda.get_device_properties(device).total_memory)


def graph_bytes_per_example(operator: LossOperator[Any]) -> int:
    """Return what one more example adds to a batch's graph: all tensors saved for the second pass, each counted once.

    Counted by storage and not asked of an allocator, so the CPU gives the same answer at any time and anywhere.
    """
    inputs, targets = operator.few_examples(_SMALL_BATCH)
    once = _saved_bytes(operator, inputs, targets)
    twice = _saved_bytes(operator, torch.cat([inputs, inputs]), torch.cat([targets, targets]))
    return max(1, -(-(twice - once) // len(targets)))


def _saved_bytes(operator: LossOperator[Any], inputs: Tensor, targets: Tensor) -> int:
    storages: dict[int, torch.UntypedStorage] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage  # held until all are counted, so that no address is used twice
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        operator.first_pass(inputs, targets)
    return sum(storage.nbytes() for storage in storages.values())
