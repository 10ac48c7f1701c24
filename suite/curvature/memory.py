"""What memory a curvature run will need, known before it starts: batch size, kept graphs, and where the basis lies."""

import logging
from dataclasses import dataclass, replace
from typing import Any

import torch

from suite.curvature.allocation import Growth, Peak, live_bytes
from suite.curvature.basis import Placement, choose_placement, room_bytes, rows_reserved
from suite.curvature.lanczos import LanczosRun
from suite.curvature.loss import LossOperator
from suite.curvature.operators import SymmetricOperator

logger = logging.getLogger(__name__)

MAX_EXAMPLES_PER_BATCH = 2048
CPU_BUDGET_BYTES = (
    4 * 2**30
)  # of products, per process; a constant, and not what is free: sums, and so results, depend on the batch size
DEVICE_FRACTION = 0.8  # of a device's whole memory; the rest is for kernels' workspaces and fragmentation
HAND_BACK_ABOVE_BYTES = 2**30  # of a product on the CPU: then freed tensors go back to the system at once
_PRODUCT_SHARE = 0.5  # of what is free: the rest is for the Lanczos basis
# On the CPU, MKL packs the operands of large matrix products in memory of its own: 11 to 27 MiB measured (FC5, 2,000
# images, one thread). Kernels of GPUs ask torch's allocator, which the trial steps see.
_KERNELS_BYTES = 16 * 2**20
_SMALL_BATCH = 2
_UNITS = (("GiB", 2**30), ("MiB", 2**20))

# (number of batches, graphs kept) -> what steps of one network take; independent of its weights and examples.
Growths = dict[tuple[int, bool], Growth]


@dataclass(frozen=True)
class BasisPlan:
    """The Lanczos bases of a run.

    Attributes:
        num_rows: Lanczos steps of each.
        num_runs: held at once.
        placement: of all.
        bytes_each: of one, rows_reserved(num_rows) * dim numbers of the placement's type.
        num_resident: how many lie in their place at once; the others wait in host memory.
    """

    num_rows: int
    num_runs: int
    placement: Placement
    bytes_each: int
    num_resident: int

    def __str__(self) -> str:
        dtype = str(self.placement.dtype).removeprefix("torch.")
        runs = f" of {self.num_runs} runs" if self.num_runs > 1 else ""
        waiting = f", {self.num_runs - self.num_resident} of them waiting in host memory"
        where = "host memory" if self.placement.device.type == "cpu" else f"{self.placement.device}"
        parked = waiting if self.num_resident < self.num_runs else ""
        return f"{in_units(self.num_runs * self.bytes_each)} ({self.num_rows} steps{runs}, {dtype} in {where}{parked})"


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes of a curvature run at its peak, part by part, where its vectors lie.

    Attributes:
        dim, dtype, device: of the vectors.
        weights_bytes: the operator's copy of the parameters and buffers.
        data_bytes: the data set as it lies on the device.
        vectors_bytes: of a Lanczos step at its peak, what does not grow with the batch: vectors, weight gradients.
        graph_bytes: of the same moment, what does: graphs, also those that are kept, cotangents, kernels' scratch.
        examples_per_batch: chosen so that all fits.
        num_kept_examples: whose graphs are kept from product to product: all, or none where that takes too much.
        budget_bytes: of all parts; None: of host memory, which holds what it can hold.
        basis: None until it is known how many steps there will be.
    """

    dim: int
    dtype: torch.dtype
    device: torch.device
    weights_bytes: int
    data_bytes: int
    vectors_bytes: int
    graph_bytes: int
    examples_per_batch: int
    num_kept_examples: int
    budget_bytes: int | None
    basis: BasisPlan | None = None

    @property
    def product_bytes(self) -> int:
        """A Lanczos step at its peak, without weights, data and basis."""
        return self.vectors_bytes + self.graph_bytes

    @property
    def kernels_bytes(self) -> int:
        """What kernels take past torch's allocator."""
        return _KERNELS_BYTES if self.device.type == "cpu" else 0

    @property
    def basis_bytes(self) -> int:
        """What bases take where the vectors lie: nothing when they were placed elsewhere."""
        if self.basis is None or self.basis.placement.device.type != self.device.type:
            return 0
        return self.basis.num_resident * self.basis.bytes_each

    @property
    def peak_bytes(self) -> int:
        """All parts together."""
        return self.weights_bytes + self.data_bytes + self.product_bytes + self.kernels_bytes + self.basis_bytes

    @property
    def basis_room_bytes(self) -> float:
        """What is left for bases where the vectors lie."""
        if self.budget_bytes is None:
            return room_bytes(self.device)
        return max(0.0, float(self.budget_bytes - self.weights_bytes - self.data_bytes - self.product_bytes))

    def placement(self, num_rows: int, *, host_bytes: float | None = None) -> Placement:
        """Choose where a basis of num_rows vectors lies, from what the other parts leave; see choose_placement."""
        return choose_placement(
            self.dim,
            num_rows,
            self.dtype,
            self.device,
            device_bytes=self.basis_room_bytes,
            host_bytes=host_bytes,
        )

    def with_basis(self, placement: Placement, num_rows: int, num_runs: int = 1) -> "MemoryPlan":
        """Return the plan of so many runs of so many steps; those that do not fit beside the latest wait elsewhere."""
        each = rows_reserved(num_rows) * self.dim * placement.dtype.itemsize
        fitting = self.basis_room_bytes // each if placement.device.type != "cpu" else num_runs
        resident = int(min(num_runs, max(1, fitting)))
        return replace(self, basis=BasisPlan(num_rows, num_runs, placement, each, resident))

    def __str__(self) -> str:
        kept = ", graphs kept" if self.num_kept_examples else ""
        parts = [f"weights {in_units(self.weights_bytes)}", f"data {in_units(self.data_bytes)}"]
        parts += [f"vectors {in_units(self.vectors_bytes)}"]
        parts += [f"graph {in_units(self.graph_bytes)} ({self.examples_per_batch} examples per batch{kept})"]
        if self.kernels_bytes:
            parts.append(f"kernels {in_units(self.kernels_bytes)}")
        if self.basis is not None:
            parts.append(f"basis {self.basis}")
        return f"{in_units(self.peak_bytes)} at the peak: {', '.join(parts)}"


def memory_plan(
    operator: LossOperator[Any],
    num_examples: int,
    *,
    data_bytes: int = 0,
    budget_bytes: int | None = None,
    may_keep_graphs: bool = True,
    known: Growths | None = None,
) -> MemoryPlan:
    """Take two Lanczos steps on a few examples, and choose the largest batch that fits from what they allocate.

    The choice is a function of shapes, of the device's kind and of the arguments, never of what is free at the moment,
    so that a run repeated on the same hardware gives the same bytes. It is a power of two, so that a few bytes more
    or less per example change nothing.

    Args:
        operator: on any number of examples; two of the first batch are used.
        num_examples: in the whole pass.
        data_bytes: of the data set on the device.
        budget_bytes: of all parts, at most half of what weights and data leave for a product; None: see budget, which
            on the CPU is for the product alone: host memory holds what it can hold.
        may_keep_graphs: from product to product, where they fit.
        known: what steps of the same network in the same arithmetic took; looked up, and added to.

    Raises:
        ValueError: what does not depend on the batch, and one example, are above the budget.

    Cost: two products over two examples and two over four, at most four times (with and without graphs kept, in one
        batch and in two); nothing for what is known.
    """
    total = budget(operator.device) if budget_bytes is None else budget_bytes
    is_for_product = budget_bytes is None and operator.device.type != "cuda"
    fixed = 0 if is_for_product else operator.state_bytes() + data_bytes
    share = _PRODUCT_SHARE * (total - fixed)
    parts = (operator.dim, operator.dtype, operator.device, operator.state_bytes(), data_bytes)
    bound = None if is_for_product else total
    largest = min(MAX_EXAMPLES_PER_BATCH, num_examples)
    trials = _Trials(operator, {} if known is None else known)
    if may_keep_graphs:
        vectors, graph = trials.step_bytes(largest, num_examples, keep_graphs=True)
        if vectors + graph <= share:
            return MemoryPlan(*parts, vectors, graph, largest, num_examples, bound)
    size = MAX_EXAMPLES_PER_BATCH
    while size:
        chosen = min(size, num_examples)
        vectors, graph = trials.step_bytes(chosen, num_examples, keep_graphs=False)
        if vectors + graph <= (total if is_for_product else share):
            return MemoryPlan(*parts, vectors, graph, chosen, 0, bound)
        size //= 2
    raise ValueError(
        f"A curvature run needs {in_units(fixed + vectors + graph)} with one example per batch, and the basis; there "
        f"are {in_units(total)}. Expected: a product within {in_units(int(max(0, share)))}; "
        "take a device with more memory."
    )


def budget(device: torch.device) -> int:
    """Return how many bytes a run may use: a constant on the CPU, a fraction of the whole memory of other devices."""
    if device.type != "cuda":
        return CPU_BUDGET_BYTES
    return int(DEVICE_FRACTION * torch.cuda.get_device_properties(device).total_memory)


def basis_placement(operator: SymmetricOperator, num_rows: int) -> Placement:
    """Choose where a basis of num_rows vectors of an operator lies: by its plan, where it has one."""
    plan = _plan(operator)
    if plan is None:
        return choose_placement(operator.dim, num_rows, operator.dtype, operator.device)
    return plan.placement(num_rows)


def basis_room_bytes(operator: SymmetricOperator) -> float:
    """Return what the bases of an operator may take where its vectors lie."""
    plan = _plan(operator)
    return room_bytes(operator.device) if plan is None else plan.basis_room_bytes


def num_columns(operator: SymmetricOperator, most: int) -> int:
    """Return how many columns a product may have: `most`, or as many as fit what the plan leaves, at least 1.

    Each takes two vectors: its own, and its product. On the CPU, where a plan leaves all of host memory, they may take
    as much as the budget of the product itself: a constant, so that equal machines give equal numbers.
    """
    room = min(basis_room_bytes(operator), float(budget(operator.device)))
    return max(1, min(most, int(room // (2 * operator.dim * operator.dtype.itemsize))))


def say_plan(operator: SymmetricOperator, placement: Placement, num_rows: int, num_runs: int = 1) -> None:
    """Log what an operator's runs will take, where that is known and has not been said before."""
    plan = _plan(operator)
    if plan is None:
        return
    placed = plan.with_basis(placement, num_rows, num_runs)
    if placed != plan:
        setattr(operator, "plan", placed)  # noqa: B010  no word of the protocol
        logger.info("curvature: %s", placed, extra={"peak_bytes": placed.peak_bytes})


def in_units(num_bytes: int) -> str:
    """Return bytes for people to read: 1.2 GiB, 310 MiB, 4.2 MiB."""
    unit, size = _UNITS[0] if num_bytes >= 2**30 else _UNITS[1]
    value = num_bytes / size
    return f"{value:.0f} {unit}" if value >= 100 else f"{value:.1f} {unit}"


def _plan(operator: SymmetricOperator) -> MemoryPlan | None:
    plan: MemoryPlan | None = getattr(operator, "plan", None)
    return plan


class _Trials:
    """Lanczos steps of an operator on a few examples: what a step of many takes at its peak."""

    def __init__(self, operator: LossOperator[Any], found: Growths) -> None:
        self._operator, self._found = operator, found
        self._few = operator.few_inputs(_SMALL_BATCH)

    def step_bytes(self, examples_per_batch: int, num_examples: int, *, keep_graphs: bool) -> Peak:
        """Return of a step at its peak what does not grow with the examples, and what does."""
        num_batches = 1 if examples_per_batch >= num_examples else 2  # a third is as the second
        growth = self._growth(num_batches, keep_graphs)
        peak = growth.peak(examples_per_batch)
        if not keep_graphs:
            return peak
        before = num_examples - num_batches * examples_per_batch
        return Peak(peak.fixed, peak.growing + round(growth.left_per_example / num_batches * before))

    def _growth(self, num_batches: int, keep_graphs: bool) -> Growth:
        asked = (num_batches, keep_graphs)
        if asked not in self._found:
            self._found[asked] = Growth.measured(lambda size: self._live(size, *asked), len(self._few[1]))
        return self._found[asked]

    def _live(self, num_examples: int, num_batches: int, keep_graphs: bool) -> list[int]:
        """Return the live bytes of two steps, those of the basis left out; the second holds all vectors there are."""
        inputs, targets = (part.repeat(num_examples // len(part), *(1,) * (part.ndim - 1)) for part in self._few)
        trial = self._operator.over([(inputs, targets)] * num_batches, keep_graphs=keep_graphs)
        rows = torch.empty((min(2, trial.dim), trial.dim), dtype=trial.dtype, device=trial.device)
        # No vector of structure: one that the Hessian maps to a multiple of itself would end the run after one step.
        start = torch.randn(trial.dim, generator=torch.Generator().manual_seed(0), dtype=trial.dtype)

        def steps() -> None:
            LanczosRun(start.to(trial.device, copy=True), basis=rows).extend_to(trial.matvec, len(rows))

        if trial.device.type == "cuda":
            steps()  # libraries allocate workspaces at their first use, and keep them
        return live_bytes(steps, trial.device)
