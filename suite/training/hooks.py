"""Where a method may step into a training."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor


def _nothing() -> None:
    pass


def _nothing_after_epoch(epoch: int) -> None:
    del epoch


def _nothing_to_restore(tensors: Mapping[str, Tensor]) -> None:
    del tensors


@dataclass(frozen=True)
class Hooks:
    """Where a method may step in.

    Attributes:
        penalty: added to the loss of each batch.
        after_step: called after each optimiser step.
        after_epoch: called with the number of finished epochs.
        state: returns what the method itself changes on the way, beside the model; it is saved with the training.
        restore: sets it again, from the CPU, when a training goes on.
    """

    penalty: Callable[[], Tensor] | None = None
    after_step: Callable[[], None] = _nothing
    after_epoch: Callable[[int], None] = _nothing_after_epoch
    state: Callable[[], Mapping[str, Tensor]] = dict
    restore: Callable[[Mapping[str, Tensor]], None] = _nothing_to_restore
