"""From a plan to what it will cost: every cell that is not committed yet, summed by task and kind of work."""

import heapq
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from suite.curvature.pace import Advance, duration, silent
from suite.datasets import Located
from suite.estimate.memory import Memory, host_bytes, process_bytes
from suite.estimate.rates import PRODUCT_FACTOR, Rates, Subject
from suite.estimate.timing import Timing
from suite.estimate.work import Guess, Work
from suite.extensions import load
from suite.network import ModelSpec
from suite.plan import Cell, Plan
from suite.study import Recipe, Task
from suite.training.flops import BACKWARD_FACTOR

# A cell reads its data set twice, for the seal and for the numbers, and hashes it. Guesses.
_READ_BYTES_PER_S, _BEGIN_S = 2e8, 0.05
_EIGEN_FLOPS = 9  # per cube of the dimension, with eigenvectors
_STATES = {"dense": 2, "prune": 1}  # state dicts in a cell's record


@dataclass(frozen=True)
class CellCost:
    """What one cell will cost.

    Attributes:
        cell: of the plan.
        task: its name.
        label: kind of work: "dense", a method, an analysis.
        work: counted.
        seconds: on this device, or on one such device for each process of the cell.
        flops: dense, of all its processes; what masks would save is not taken off.
        memory: at the peak of each process; None: too slow to measure.
        begin_s: of the seconds, what reading takes before anything is computed.
    """

    cell: Cell
    task: str
    label: str
    work: Work
    seconds: Guess
    flops: Guess
    memory: Memory | None
    begin_s: float


@dataclass(frozen=True)
class Estimate:
    """What a plan will cost.

    Attributes:
        costs: of every cell that is not committed, in the plan's order.
        num_done: committed cells.
        rates: task -> what was measured for it.
        device: name of the kind of device, "cpu" or "cuda".
    """

    costs: tuple[CellCost, ...]
    num_done: int
    rates: dict[str, Rates]
    device: str

    @property
    def contradictory(self) -> dict[str, float]:
        """Task -> by what factor equal trials of it differed, where that is too much for any of them to be believed."""
        spreads = {
            task: max((each.spread for each in rates.measured() if each.is_contradictory), default=0.0)
            for task, rates in self.rates.items()
        }
        return {task: spread for task, spread in spreads.items() if spread}

    @property
    def seconds(self) -> Guess:
        """Of all cells, one after the other."""
        return Guess.total(cost.seconds for cost in self.costs)

    @property
    def device_seconds(self) -> Guess:
        """Of all cells, summed over the devices that each of them computes on."""
        return Guess.total(cost.seconds.times(cost.cell.processes) for cost in self.costs)

    @property
    def flops(self) -> Guess:
        """Of all cells."""
        return Guess.total(cost.flops for cost in self.costs)

    @property
    def disk_bytes(self) -> int:
        """Of all cells' files; results.h5 holds a copy of each, and is as large again."""
        return sum(cost.work.disk_bytes for cost in self.costs)

    def longest_chain(self, seconds: Callable[[CellCost], float]) -> list[CellCost]:
        """Return the cells that have to follow one another, and together take longest."""
        best: dict[str, tuple[float, list[CellCost]]] = {}
        for cost in self.costs:
            before = [best[each.key] for each in cost.cell.inputs.values() if each.key in best]
            length, chain = max(before, key=lambda way: way[0], default=(0.0, []))
            best[cost.cell.id.key] = (length + seconds(cost), [*chain, cost])
        return max(best.values(), key=lambda way: way[0], default=(0.0, []))[1]

    def wall_s(self, workers: int, seconds: Callable[[CellCost], float]) -> float:
        """Return how long so many workers take that each begin the cell with the longest way ahead."""
        ahead = self._ahead(seconds)
        by_key = {cost.cell.id.key: cost for cost in self.costs}
        waits = {key: {each.key for each in cost.cell.inputs.values()} & set(by_key) for key, cost in by_key.items()}
        needed_by: dict[str, list[str]] = {key: [] for key in by_key}
        for key, inputs in waits.items():
            for each in inputs:
                needed_by[each].append(key)
        ready = [(-ahead[key], key) for key, inputs in waits.items() if not inputs]
        heapq.heapify(ready)
        running: list[tuple[float, str]] = []
        now = 0.0
        while ready or running:
            while ready and len(running) < workers:
                _, key = heapq.heappop(ready)
                heapq.heappush(running, (now + seconds(by_key[key]), key))
            now, ended = heapq.heappop(running)
            for key in needed_by[ended]:
                waits[key].discard(ended)
                if not waits[key]:
                    heapq.heappush(ready, (-ahead[key], key))
        return now

    def _ahead(self, seconds: Callable[[CellCost], float]) -> dict[str, float]:
        """Return key -> the longest way from a cell's begin to the end."""
        after: dict[str, float] = {}
        ahead: dict[str, float] = {}
        for cost in reversed(self.costs):
            key = cost.cell.id.key
            ahead[key] = seconds(cost) + after.get(key, 0.0)
            for each in cost.cell.inputs.values():
                after[each.key] = max(after.get(each.key, 0.0), ahead[key])
        return ahead


def estimate(
    plan: Plan,
    find: Callable[[Task], Located],
    is_done: Callable[[Cell], bool],
    device: str,
    *,
    budget_s: float,
    advance: Advance = silent,
) -> Estimate:
    """Count every cell's work, and measure how fast this machine does it.

    Args:
        plan: the study's.
        find: finds a task's data set.
        is_done: whether a cell is committed.
        device: "cpu" or "cuda", on which is measured.
        budget_s: for the timings of one task; memory is beside it.
        advance: called with a fraction in [0, 1] and a text.

    Raises:
        UserError: a network has no fixed Hessian.
    """
    process_bytes()
    missing = [cell for cell in plan.cells if not is_done(cell)]
    keys, subjects = _subjects(missing, plan, find)
    teller = Teller(advance, len(subjects))
    measured = {key: Rates(subject, device, budget_s, teller.tell) for key, subject in subjects.items()}
    costs = []
    for cell in missing:
        task = plan.tasks[cell.task]
        teller.stands(keys[task.name], task.name)
        costs.append(_cost(cell, task, measured[keys[task.name]]))
    rates = {task: measured[key] for task, key in keys.items()}
    return Estimate(tuple(costs), len(plan.cells) - len(missing), rates, device)


def _subjects(
    cells: Sequence[Cell], plan: Plan, find: Callable[[Task], Located]
) -> tuple[dict[str, str], dict[str, Subject]]:
    """Return task -> key of what is measured for it, and key -> that; equal networks on equal data have one key."""
    keys: dict[str, str] = {}
    subjects: dict[str, Subject] = {}
    for cell in cells:
        if cell.task not in keys:
            spec = ModelSpec.model_validate(cell.config["model"], strict=False)
            subject = Subject(spec, find(plan.tasks[cell.task]), cell.threads)
            key = f"{spec.model_dump_json()} {subject.located.path} {subject.threads}"
            keys[cell.task] = key
            subjects.setdefault(key, subject)
    return keys, subjects


class Teller:
    """Says how many networks are measured, what of the next one is, and how long the rest takes at this pace.

    Args:
        advance: called with a fraction in [0, 1] and a text such as "network 3 of 10, fc5-cifar10: steps of 128
            examples, about 40 s left".
        num_networks: that are to be measured.
        clock: seconds from any fixed moment.
    """

    def __init__(self, advance: Advance, num_networks: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._advance, self._num_networks, self._clock = advance, num_networks, clock
        self._begun: list[str] = []
        self._name = ""
        self._first_s = self._last_s = clock()

    def stands(self, key: str, name: str) -> None:
        """Take note of whose cells come next: key: of its network; name: of the task."""
        self._name = name
        if key not in self._begun:
            self._begun.append(key)
            self._last_s = self._clock()

    def tell(self, what: str) -> None:
        """Tell what is being measured."""
        done = len(self._begun) - 1
        text = f"network {done + 1} of {self._num_networks}, {self._name}: {what}"
        if done:
            whole_s = (self._last_s - self._first_s) / done * (self._num_networks - done)
            left_s = whole_s - (self._clock() - self._last_s)
            text += f", about {duration(left_s)} left" if left_s > 0 else ""
        self._advance(done / self._num_networks, text)


def _cost(cell: Cell, task: Task, rates: Rates) -> CellCost:
    module = load("suite.cells", cell.id.kind, "kind of cell")
    work: Work = module.work(module.Config.model_validate(cell.config, strict=False), rates.sizes)
    label = cell.config["method"] if cell.id.kind == "prune" else cell.id.kind
    begin_s = _BEGIN_S + rates.sizes.example_bytes * rates.sizes.num_examples / _READ_BYTES_PER_S
    seconds = Guess.total([Guess.exactly(begin_s), _computing(work, task.training, rates)])
    memory = _memory(cell, work, task.training, rates)
    return CellCost(cell, task.name, label, work, seconds, _flops(work, rates, cell.processes), memory, begin_s)


def _computing(work: Work, plain: Recipe, rates: Rates) -> Guess:
    """Return the seconds that each process of a cell computes: linear in steps and examples."""
    sizes, parts = rates.sizes, []
    for each in work.trainings:
        num_shared = min(each.recipe.batch_size, sizes.num_train)
        step_s = rates.step(each.recipe).per_example_s * -(-num_shared // each.recipe.data_parallel)
        parts.append(each.times.times(each.num_steps * step_s))
    if (evaluated := _evaluated(work)).high:
        parts.append(evaluated.times(rates.evaluated(plain).per_example_s))
    if work.products.high:
        parts.append(work.products.times(sizes.num_train * rates.product(plain, work.dtype).per_example_s))
    if work.matrix_dim:
        parts.append(Guess.exactly(rates.eigendecomposition_s(work.matrix_dim)))
    return Guess.total(parts)


def _flops(work: Work, rates: Rates, processes: int) -> Guess:
    """Return a cell's operations on dense weights; its processes share batches, and all else each of them does."""
    sizes = rates.sizes
    trained = [
        each.times.times(BACKWARD_FACTOR * each.num_steps * min(each.recipe.batch_size, sizes.num_train))
        for each in work.trainings
    ]
    by_each = [_evaluated(work), work.products.times(PRODUCT_FACTOR * sizes.num_train)]
    examples = [*trained, *(each.times(processes) for each in by_each)]
    matrix = Guess.exactly(_EIGEN_FLOPS * work.matrix_dim**3 * processes)
    return Guess.total([Guess.total(examples).times(rates.forward_flops), matrix])


def _evaluated(work: Work) -> Guess:
    return Guess.total([work.evaluated, *(each.times.times(each.evaluated) for each in work.trainings)])


def _memory(cell: Cell, work: Work, plain: Recipe, rates: Rates) -> Memory | None:
    device_bytes = rates.device_bytes(plain, work)
    if device_bytes is None:
        return None
    read = sum(_STATES.get(each.kind, 0) for each in cell.inputs.values())
    host = host_bytes(rates.sizes, read, _STATES.get(cell.id.kind, 0))
    return Memory(device_bytes, host, on_host=rates.device == "cpu")


def timings(rates: Rates) -> dict[str, Any]:
    """Return what was measured, for a person: name -> timing."""
    found: dict[str, Timing] = (
        {"training": min(rates.steps.values(), key=lambda each: -each.per_example_s)} if rates.steps else {}
    )
    if rates.evaluation:
        found["evaluation"] = rates.evaluation
    return found | {f"{dtype} product": timing for dtype, timing in rates.products.items()}
