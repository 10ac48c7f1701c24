"""A cell for which the memory of its GPU is too small: said in one line, with what leaves more of it free."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from suite.errors import UserError, first_line

# Libraries below torch that allocate by themselves say so in errors of no type of their own.
_OF_LIBRARIES = ("CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED", "CUDA error: out of memory")


@contextmanager
def lack_of_memory_named(config: Mapping[str, Any]) -> Iterator[None]:
    """Within, turn the errors of a full device into the one line of a user's.

    Args:
        config: of the cell that is computed; its recipes tell what can be made smaller.

    Raises:
        UserError: the device has no more memory.
    """
    try:
        yield
    except RuntimeError as error:
        if not (isinstance(error, torch.OutOfMemoryError) or any(name in str(error) for name in _OF_LIBRARIES)):
            raise
        what = first_line(error).partition(". GPU ")[0]  # what follows are the allocator's own figures
        raise UserError(f"The GPU has no memory left: {what}. {_repair(config)}") from error


def _repair(config: Mapping[str, Any]) -> str:
    fewer = "fewer cells on it at a time (--workers, or cells_at_once of a Slurm profile)"
    sizes = [_examples_at_once(each) for each in config.values() if isinstance(each, Mapping) and "batch_size" in each]
    if max(sizes, default=1) == 1:
        return f"Compute {fewer}, or on a larger one."
    largest = max(sizes)
    return (
        f"Set training.micro_batch_size to {largest // 2} or less, by which steps and evaluations hold fewer than the "
        f"{largest} examples of now, or compute {fewer}."
    )


def _examples_at_once(recipe: Mapping[str, Any]) -> int:
    share = -(-int(recipe["batch_size"]) // int(recipe.get("data_parallel") or 1))
    return min(int(recipe.get("micro_batch_size") or share), share)
