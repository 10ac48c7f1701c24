"""Examples as a caller in the same process gives them: tensors, numpy arrays or lists, checked as a file's would be."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from suite.errors import UserError, first_line

Array = Tensor | np.ndarray[Any, Any] | Sequence[Any]
_WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def given_examples(inputs: Array, targets: Array) -> tuple[Tensor, Tensor]:
    """Return inputs (n, ...), whole numbers in their dtype and others as float32, and targets (n,) as int64.

    Raises:
        UserError: something else than numbers, shapes that do not belong together, an input that is not finite in
            float32, targets that are no classes.

    Cost: a tensor or array that has the right dtype already is not copied.
    """
    features, classes = _as_tensor("inputs", inputs), _as_tensor("targets", targets)
    if features.ndim < 2 or classes.ndim != 1 or len(features) != len(classes) or not len(classes):
        raise UserError(
            f"inputs have shape {tuple(features.shape)} and targets {tuple(classes.shape)}. "
            "Expected: (n, ...) and (n,), n >= 1. Flatten targets, or take argmax(axis=1) of one-hot rows."
        )
    whole = classes if classes.is_floating_point() else classes.to(torch.int64)  # torch finds no least of a uint16
    if whole.is_floating_point() or int(whole.min()) < 0:
        raise UserError(f"targets are {classes.dtype}, from {whole.min():g}. Expected: whole classes from 0.")
    if features.dtype not in _WHOLE:
        features = features.to(torch.float32)
        _check_finite(features)
    return features, whole


def _as_tensor(name: str, value: Array) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach()
    if not isinstance(value, np.ndarray | list | tuple):
        raise UserError(f"{name} are {type(value).__name__}. Expected: a torch tensor, a numpy array or a list.")
    try:
        array = np.asarray(value)
        # Torch takes no other byte order and no negative strides, and warns of what cannot be written to.
        return torch.as_tensor(np.require(array, array.dtype.newbyteorder("="), ["C", "W"]))
    except Exception as error:  # numpy and torch raise many types for what is no array of numbers
        raise UserError(
            f"{name} cannot be made a tensor: {first_line(error)}. Expected: numbers, all rows of one shape."
        ) from error


def _check_finite(inputs: Tensor) -> None:
    finite = torch.isfinite(inputs)
    if finite.all():
        return
    number = finite.numel() - int(torch.count_nonzero(finite))
    first = tuple(int(index) for index in np.unravel_index(int(finite.flatten().int().argmin()), finite.shape))
    raise UserError(
        f"inputs hold {number} values that are not finite in float32 (the first at {first}). Expected: finite numbers. "
        "Remove or impute them."
    )
