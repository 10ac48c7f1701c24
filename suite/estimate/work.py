"""What one cell will do and store, counted from its configuration alone; guesses carry their range."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import log2
from typing import NamedTuple

from suite.study import Recipe
from suite.training.schedules import num_steps, steps_per_epoch

# Measured on 2 million normal numbers in float32: shuffle and gzip 4 leave 3.42 of 4 bytes. Where a fraction of them
# is kept and the others are zero, each byte plane has to say again which: 3.4 bytes per kept number and 1.1 times the
# entropy of the mask, within 15 % at sparsities of 0.5 to 0.98.
_BYTES_PER_NUMBER, _BYTES_PER_ENTROPY_BIT = 3.42, 1.1
_MASK_BITS_PER_ENTROPY_BIT = 1.3  # gzip on packed bits, within 15 % at 0.5 to 0.95
# Of HDF5's own structure, with configuration and environment: fitted to cells of quickstart.
_FILE_BYTES, _ARRAY_BYTES, _SCALAR_BYTES = 18_000, 2_400, 800
_NUM_CURVES, _NUM_SCALARS = 7, 16  # of a trained network


class Guess(NamedTuple):
    """A number that is not known before it is spent: the least, the likely, and the most."""

    low: float
    likely: float
    high: float

    @classmethod
    def exactly(cls, value: float) -> "Guess":
        """Return a number that is known."""
        return cls(value, value, value)

    @classmethod
    def total(cls, parts: Iterable["Guess"]) -> "Guess":
        """Return the sum, end by end: as if all guesses were wrong the same way."""
        sums = [sum(ends) for ends in zip(*parts, strict=True)]
        return cls(*sums) if sums else cls.exactly(0.0)

    def times(self, factor: float) -> "Guess":
        """Return all three times a factor, at least 0."""
        return Guess(*(factor * value for value in self))


NOTHING = Guess.exactly(0)


class Sizes(NamedTuple):
    """Of a network and its data, whatever is counted from.

    Attributes:
        num_train, num_validation, num_test: examples.
        num_prunable: weights.
        num_layers: tensors of prunable weights.
        num_state: numbers in the state dict, buffers included.
        num_state_arrays: tensors there.
        example_bytes: of one example as it is stored, target included.
    """

    num_train: int
    num_validation: int
    num_test: int
    num_prunable: int
    num_layers: int
    num_state: int
    num_state_arrays: int
    example_bytes: int

    @property
    def num_examples(self) -> int:
        """Of all splits."""
        return self.num_train + self.num_validation + self.num_test


class TrainingWork(NamedTuple):
    """Some trainings of one recipe.

    Attributes:
        recipe: whose batch is stepped.
        num_steps: of each.
        evaluated: examples that are evaluated on the way, in each.
        times: how many trainings.
    """

    recipe: Recipe
    num_steps: int
    evaluated: int = 0
    times: Guess = Guess.exactly(1)


@dataclass(frozen=True)
class Work:
    """What a cell does.

    Attributes:
        trainings: see TrainingWork.
        evaluated: examples evaluated beside them.
        products: Hessian products over the whole training split.
        dtype: of the products.
        num_rows: Lanczos vectors that are held at once.
        matrix_dim: of a matrix in float64 that is diagonalised; 0: none.
        disk_bytes: of the committed file.
    """

    trainings: tuple[TrainingWork, ...] = ()
    evaluated: Guess = NOTHING
    products: Guess = NOTHING
    dtype: str = "float32"
    num_rows: int = 0
    matrix_dim: int = 0
    disk_bytes: int = 0

    @property
    def num_trainings(self) -> Guess:
        """How many trainings."""
        return Guess.total(each.times for each in self.trainings)

    @property
    def gradient_steps(self) -> Guess:
        """Of all trainings."""
        return Guess.total(each.times.times(each.num_steps) for each in self.trainings)


def training_work(
    recipe: Recipe, sizes: Sizes, *, start_step: int = 0, stop_step: int | None = None, evaluates: bool = True
) -> TrainingWork:
    """Return a training of the loop: its steps, and after each epoch that it ends or stops in, validation and test."""
    total = num_steps(recipe, sizes.num_train)
    stop = total if stop_step is None else min(stop_step, total)
    per_epoch = steps_per_epoch(recipe, sizes.num_train)
    num_epochs = -(-stop // per_epoch) - start_step // per_epoch
    evaluated = num_epochs * (sizes.num_validation + sizes.num_test) if evaluates else 0
    return TrainingWork(recipe, stop - start_step, evaluated)


def of_one_process(recipe: Recipe) -> Recipe:
    """Return the recipe of one of the processes that share a recipe's batches: the largest share, taken alone."""
    share = -(-recipe.batch_size // recipe.data_parallel)
    return recipe.model_copy(update={"batch_size": share, "data_parallel": 1})


def trained_network_bytes(sizes: Sizes, num_states: int, num_keep: int | None = None) -> int:
    """Return the size of a file with a training's curves and metrics and so many state dicts.

    Args:
        sizes: of the network.
        num_states: state dicts.
        num_keep: of the prunable weights of each, whose mask is stored as well; None: all, without a mask.
    """
    density = 1.0 if num_keep is None else num_keep / sizes.num_prunable
    others = _BYTES_PER_NUMBER * (sizes.num_state - sizes.num_prunable)
    numbers = num_states * (others + sizes.num_prunable * bytes_per_weight(density))
    arrays, scalars = num_states * sizes.num_state_arrays + _NUM_CURVES, _NUM_SCALARS
    if num_keep is not None:
        bits = min(1.02, _MASK_BITS_PER_ENTROPY_BIT * _entropy(density))
        numbers, arrays, scalars = numbers + bits * sizes.num_prunable / 8, arrays + 1, scalars + sizes.num_layers
    return file_bytes(arrays, scalars, numbers)


def bytes_per_weight(density: float) -> float:
    """Return what one weight takes on disk where a fraction is kept and the others are zero."""
    return min(_BYTES_PER_NUMBER, 3.4 * density + _BYTES_PER_ENTROPY_BIT * _entropy(density))


def file_bytes(num_arrays: int, num_scalars: int, num_bytes: float) -> int:
    """Return the size of a committed file with so many arrays, scalars, and compressed bytes in the arrays."""
    return round(_FILE_BYTES + _ARRAY_BYTES * num_arrays + _SCALAR_BYTES * num_scalars + num_bytes)


def _entropy(density: float) -> float:
    return -sum(part * log2(part) for part in (density, 1 - density) if part > 0)
