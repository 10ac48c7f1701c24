"""What a cell holds at its peak: from the allocations of two small trials, each on a straight line in the examples."""

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch

from suite.curvature.allocation import Growth, live_bytes
from suite.curvature.memory import memory_plan
from suite.estimate.timing import Trial
from suite.estimate.work import Sizes, Work, of_one_process
from suite.problem import evaluate
from suite.study import Recipe

_TRIAL = 2  # examples of the smaller trial
# A state dict as a record's arrays and once more as tensors; what a record's arrays take once more as a file's image.
_STATES_OF_INPUTS, _STATES_OF_RECORD = 2, 3
_FLOAT_BYTES, _MATRICES = 4, 4  # of float64 that an eigendecomposition holds


@dataclass(frozen=True)
class Memory:
    """Bytes of one cell at its peak, in each of its processes.

    Attributes:
        device_bytes: where it computes, the data set included.
        host_bytes: in the process beside it: Python and its libraries, records read and written.
        on_host: the device is the processor, so both lie in one memory.
    """

    device_bytes: int
    host_bytes: int
    on_host: bool

    @property
    def process_bytes(self) -> int:
        """What a scheduler has to give the process in host memory."""
        return self.host_bytes + (self.device_bytes if self.on_host else 0)


def training_growth(trial: Trial) -> Growth:
    """Return what a first gradient step without momentum holds, in the examples of a batch."""
    model, device = trial.model(), torch.device(trial.device)

    recipe = trial.recipe.model_copy(update={"optimiser": "sgd", "momentum": 0.0, "nesterov": False})
    trial = replace(trial, recipe=recipe)

    def steps(size: int) -> list[int]:
        split = trial.split(size)
        if device.type == "cuda":
            trial.train(model, size, 1, split)  # libraries allocate workspaces at their first use, and keep them
        model.zero_grad(set_to_none=True)  # of the trial before
        return live_bytes(lambda: trial.train(model, size, 1, split), device)

    return Growth.measured(steps, _TRIAL)


def evaluation_growth(trial: Trial) -> Growth:
    """Return what an evaluation holds, in the examples that it takes at once."""
    model = trial.model()
    evaluate(model, trial.split(1))  # looks once at how many the network takes

    def evaluations(size: int) -> list[int]:
        split = trial.split(size)
        return live_bytes(lambda: evaluate(model, split), torch.device(trial.device))

    return Growth.measured(evaluations, _TRIAL)


def training_bytes(stepping: Growth, evaluating: Growth, evaluation_batch: int, recipe: Recipe, sizes: Sizes) -> int:
    """Return the peak of a training with its evaluations on the device: weights, data, and the larger of both.

    evaluation_batch: what the network takes at once, see suite.evaluation_batch.

    Of several processes that share batches it is that of one, with the buckets in which torch adds gradients up.

    A later step has beside a first one what the optimiser keeps, and the batch before, until the next is drawn.
    """
    buckets = _FLOAT_BYTES * sizes.num_state if recipe.data_parallel > 1 else 0
    recipe = of_one_process(recipe)
    batch = min(recipe.micro_batch_size or recipe.batch_size, recipe.batch_size, sizes.num_train)
    largest = min(evaluation_batch, recipe.micro_batch_size or evaluation_batch, sizes.num_examples)
    kept = 2 if recipe.optimiser == "adam" else int(recipe.momentum > 0)
    later = _FLOAT_BYTES * kept * sizes.num_state + min(recipe.batch_size, sizes.num_train) * sizes.example_bytes
    return fixed_bytes(sizes) + later + buckets + max(sum(stepping.peak(batch)), sum(evaluating.peak(largest)))


def products_bytes(trial: Trial, sizes: Sizes, work: Work) -> int:
    """Return the peak of Hessian products with their Lanczos vectors on the device, or of a matrix and its likes."""
    operator = trial.network(_TRIAL).hessian(work.dtype)
    plan = memory_plan(operator, sizes.num_train, data_bytes=sizes.example_bytes * sizes.num_examples)
    if work.num_rows:
        plan = plan.with_basis(plan.placement(work.num_rows), work.num_rows)
    return plan.peak_bytes + _MATRICES * 8 * work.matrix_dim**2


def fixed_bytes(sizes: Sizes) -> int:
    """Return what does not depend on a batch: weights, and all examples as they are stored."""
    return _FLOAT_BYTES * sizes.num_state + sizes.example_bytes * sizes.num_examples


def host_bytes(sizes: Sizes, num_states_read: int, num_states_written: int) -> int:
    """Return what a cell's process holds beside the device: its interpreter as it is here, and records."""
    states = _STATES_OF_INPUTS * num_states_read + _STATES_OF_RECORD * num_states_written
    return process_bytes() + states * _FLOAT_BYTES * sizes.num_state


@cache
def process_bytes() -> int:
    """Return what this process has resident when it is first asked: program, libraries, heap; 0.5 GiB if nobody says.

    To be asked before any trial, which may leave holes in the heap.
    """
    try:
        resident_pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 2**29
    return resident_pages * 4096
