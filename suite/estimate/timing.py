"""How long a few real training steps, evaluations and Hessian products take on the device that is there."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from suite.evaluation_batch import LARGEST_BATCH, evaluation_batch
from suite.network import ModelSpec
from suite.networks.loaded import Network
from suite.problem import Problem, evaluate
from suite.splits import Normalisation, Split
from suite.study import Recipe
from suite.training.loop import train

_LEAST_S = 0.2  # of a timing: shorter ones say little
_BLOCKS = 3  # of which the fastest counts: others may work on the machine meanwhile
_MAX_REPEATS = 500
_GROWTH = 4  # from one trial's size to the next
_TRIES = 2  # of each size that is quick enough, of which the faster one counts
_MOST_OF_BUDGET = 0.6  # that is left, for the next size
_EIGEN_DIM = 400
CONTRADICTION = 3.0  # between equal trials: beyond, something else than the computation was measured
_SMALLEST = 2  # batch normalisation needs two examples


@dataclass(frozen=True)
class Timing:
    """One timed computation.

    Attributes:
        seconds: of it, over `size` examples at once.
        size: examples.
        wanted: examples of the real one; above size, what is not fixed is extrapolated by example.
        fixed_s: the part of the seconds that more examples do not lengthen, such as an optimiser's over all weights.
        spread: slowest of equal trials over the fastest, which is the one that counts; 1.0 where there was but one.
        on_one_thread: of several that it is meant for: they were slower.
    """

    seconds: float
    size: int
    wanted: int
    fixed_s: float = 0.0
    spread: float = 1.0
    on_one_thread: bool = False

    @property
    def per_example_s(self) -> float:
        """Seconds per example, in the real size."""
        return self.fixed_s / max(self.size, self.wanted) + (self.seconds - self.fixed_s) / self.size

    @property
    def is_extrapolated(self) -> bool:
        """Whether the real size was too large to try."""
        return self.size < self.wanted

    @property
    def is_contradictory(self) -> bool:
        """Whether equal trials differ by so much that none of them can be believed."""
        return self.spread > CONTRADICTION


def fastest(run: Callable[[int, int], None], wanted: int, budget_s: float, device: str) -> Timing:
    """Time a computation with all threads, and on processors with one alone as well; return what is faster.

    Threads that share a processor with others at work wait for one another, up to a thousand times as long as they
    compute. Threads on a free machine are about as fast as one of them alone, or faster.

    Args: as of growing.
    """
    count = torch.get_num_threads()
    if device != "cpu" or count == 1:
        return growing(run, wanted, budget_s, device)
    with threads(1):
        alone = growing(run, wanted, budget_s / 2, device)
    together = growing(run, wanted, budget_s / 2, device)
    if alone.per_example_s < together.per_example_s:
        return replace(alone, on_one_thread=True)
    return together


def growing(run: Callable[[int, int], None], wanted: int, budget_s: float, device: str) -> Timing:
    """Time a computation on growing sizes, up to the wanted one or the last that the budget allows.

    Args:
        run: computes on so many examples, so many times.
        wanted: the size that is asked about.
        budget_s: for all trials but a first one, which loads kernels; one more is made in any case. Of wall time.
        device: "cpu" or "cuda", that computes; on processors what others do there meanwhile is not counted.
    """
    clock = _clock(device)
    size = min(_SMALLEST, wanted)
    run(size, 1)  # libraries choose and load their kernels, which is no part of the budget
    began = time.monotonic()
    tried = []
    while True:
        once, wall_s = _seconds(run, size, 1, clock)
        if wall_s < (budget_s - (time.monotonic() - began)) / _GROWTH:
            once, wall_s = min((once, wall_s), _seconds(run, size, 1, clock))
        tried.append((size, once))
        slowed = max(1.0, wall_s / max(once, 1e-6))  # by others at work
        left = (budget_s - (time.monotonic() - began)) / slowed
        next_size = min(wanted, _GROWTH * size)
        if size == wanted or not _fits(tried, next_size, left):
            break
        size = next_size
    shortest, blocks = once, []
    for _ in range(_BLOCKS):
        left = (budget_s - (time.monotonic() - began)) / slowed
        repeats = min(_MAX_REPEATS, int(min(left, _LEAST_S) / max(shortest, 1e-6)))
        if repeats >= 1:
            blocks.append(_seconds(run, size, repeats, clock)[0] / repeats)
            shortest = min(shortest, blocks[-1])
    fixed_s = min(shortest, _fixed_s(tried)) if size < wanted else 0.0
    return Timing(shortest, size, wanted, fixed_s, max(blocks) / max(min(blocks), 1e-9) if blocks else 1.0)


def _fits(tried: list[tuple[int, float]], size: int, left_s: float) -> bool:
    """Return whether the next size is to be tried; the second one where at all possible: one says not what is fixed."""
    foreseen_s = _foreseen(tried, size)
    return foreseen_s < left_s if len(tried) == 1 else _TRIES * foreseen_s <= _MOST_OF_BUDGET * left_s


def _foreseen(tried: list[tuple[int, float]], size: int) -> float:
    """Return how long the next size will take, by the line through the last two; after one, as if half were fixed."""
    last_size, last_s = tried[-1]
    fixed_s = _fixed_s(tried) if len(tried) > 1 else last_s / 2
    return fixed_s + (last_s - fixed_s) * size / last_size


def _fixed_s(tried: list[tuple[int, float]]) -> float:
    """Return what the line through the last two timings has at no examples, within what was measured."""
    if len(tried) < 2:
        return 0.0
    (small, small_s), (large, large_s) = tried[-2:]
    per_example_s = max(0.0, (large_s - small_s) / (large - small))
    return min(large_s, max(0.0, large_s - large * per_example_s))


def _seconds(
    run: Callable[[int, int], None], size: int, repeats: int, clock: Callable[[], float]
) -> tuple[float, float]:
    """Return what a computation takes by a clock, and by the one on the wall."""
    began, on_wall = clock(), time.monotonic()
    run(size, repeats)
    return clock() - began, time.monotonic() - on_wall


def _clock(device: str) -> Callable[[], float]:
    """Return the clock of what a device computes: of the processors' own time, which others at work do not lengthen.

    A thread that shares in all parallel work, and waits for the others, computes as long as a free machine would take.
    Where it sleeps meanwhile, the time of all threads, shared out among them, is longer. A GPU has no such clock.
    """
    if device != "cpu":
        return time.monotonic
    count = torch.get_num_threads()
    return lambda: max(time.thread_time(), time.process_time() / count)


@dataclass(frozen=True)
class Trial:
    """A network on random examples: what is timed, and what memory is measured by.

    Attributes:
        spec: of the network.
        recipe: with which it is trained, in epochs of any number.
        is_pixels: inputs are stored as such.
        input_dtype: as the network takes them.
        device: "cpu" or "cuda".
    """

    spec: ModelSpec
    recipe: Recipe
    is_pixels: bool
    input_dtype: torch.dtype
    device: str

    def model(self) -> nn.Module:
        """Build the network as a cell does."""
        return Problem.of(self.spec, {}, initialisation=self.recipe.initialisation, seed=0, device=self.device).model

    def evaluation_batch(self) -> int:
        """Return how many examples an evaluation takes at once."""
        return evaluation_batch(self.model().eval(), self.split(1).network_inputs())

    def split(self, size: int) -> Split:
        """Return random examples, stored as the data set's are; token ids are zeros."""
        shape, draw = (size, *self.spec.input_shape), torch.Generator().manual_seed(0)
        targets = torch.randint(self.spec.num_classes, (size,), generator=draw).to(self.device)
        if self.is_pixels:
            pixels = torch.randint(256, shape, generator=draw, dtype=torch.uint8)
            return Split(pixels.to(self.device), targets, Normalisation((0.5,), (0.25,)))
        if self.input_dtype.is_floating_point:
            inputs = torch.randn(shape, generator=draw).to(self.input_dtype)
        else:
            inputs = torch.zeros(shape, dtype=self.input_dtype)
        return Split(inputs.to(self.device), targets)

    def train(self, model: nn.Module, size: int, num_steps: int, split: Split | None = None) -> None:
        """Take real steps of the training loop with a batch of so many examples."""
        recipe = self.recipe.model_copy(update={"batch_size": size, "epochs": num_steps})
        train(model, {"train": split or self.split(size)}, recipe, 0, stop_step=num_steps)

    def network(self, size: int) -> Network:
        """Return the network with a training split of so many examples, for products."""
        return Network(self.model().eval(), {"train": self.split(size)})


def step_timing(trial: Trial, budget_s: float) -> Timing:
    """Time a gradient step of a full batch."""
    model = trial.model()
    splits: dict[int, Split] = {}

    def steps(size: int, repeats: int) -> None:
        if size not in splits:
            splits[size] = trial.split(4 * size)
        trial.train(model, size, repeats, splits[size])

    return fastest(steps, trial.recipe.batch_size, budget_s, trial.device)


def evaluation_timing(trial: Trial, wanted: int, budget_s: float) -> Timing:
    """Time an evaluation of so many examples, or of a full batch of it."""
    model = trial.model()
    splits: dict[int, Split] = {}

    def evaluations(size: int, repeats: int) -> None:
        if size not in splits:
            splits[size] = trial.split(size)
        for _ in range(repeats):
            evaluate(model, splits[size])

    return fastest(evaluations, min(trial.evaluation_batch(), wanted), budget_s, trial.device)


def product_timing(trial: Trial, dtype: str, wanted: int, budget_s: float) -> Timing:
    """Time a Hessian product over so many examples, or over part of them, as operators compute it."""
    operators: dict[int, Any] = {}

    def products(size: int, repeats: int) -> None:
        if size not in operators:
            operators.clear()  # one set of graphs at a time
            operators[size] = trial.network(size).hessian(dtype)
        operator = operators[size]
        vector = torch.randn(operator.dim, generator=torch.Generator().manual_seed(0), dtype=operator.dtype)
        vector = vector.to(operator.device)
        for _ in range(repeats):
            operator.matvec(vector)
        if operator.device.type == "cuda":
            torch.cuda.synchronize()

    return fastest(products, min(LARGEST_BATCH, wanted), budget_s, trial.device)


def eigendecomposition_s(device: str) -> float:
    """Time the eigendecomposition of a small matrix in float64, in seconds per cube of its dimension."""
    matrix = torch.randn(_EIGEN_DIM, _EIGEN_DIM, dtype=torch.float64, device=device)

    def decompositions(size: int, repeats: int) -> None:
        del size
        for _ in range(repeats):
            float(torch.linalg.eigh(matrix + matrix.T).eigenvalues[0])

    decompositions(_EIGEN_DIM, 1)
    tries = [_seconds(decompositions, _EIGEN_DIM, 1, _clock(device))[0] for _ in range(_TRIES)]
    return min(tries) / _EIGEN_DIM**3


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute with as many threads as a cell does, or as there are processors: more would wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads_here(count))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def threads_here(count: int) -> int:
    """Return how many of so many threads have a processor of their own."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(count, processors)
