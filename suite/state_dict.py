"""State dicts that a user brings or a cell stored: read without unpickling objects, loaded only where they fit."""

import pickle  # for its error alone
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from suite.errors import UserError, first_line
from suite.network import other_names

_EXPECTED = "Expected: torch.save(model.state_dict(), PATH)."


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict with weights_only=True: nothing in the file is ever executed.

    Raises:
        UserError: the file is missing, not a torch file, or holds something else than named tensors.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # torch's two lines about foreign pickles: refused below in one
            state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist. {_EXPECTED}") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder. {_EXPECTED}") from None
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} cannot be read as weights: it is no torch file, or holds more than tensors, and objects are never "
            f"unpickled. {_EXPECTED}"
        ) from error
    except Exception as error:  # torch raises many types for a damaged or hostile file
        raise UserError(
            f"{path} cannot be read as weights: it is no torch file, or a damaged one ({type(error).__name__}: "
            f"{first_line(error)}). {_EXPECTED}"
        ) from error
    return _tensors(state, path)


def _tensors(state: Any, path: Path) -> dict[str, Tensor]:
    if isinstance(state, dict) and all(isinstance(value, Tensor) for value in state.values()):
        return state
    inner = [key for key, value in state.items() if _is_state(value)] if isinstance(state, dict) else []
    if inner:
        raise UserError(
            f"{path} is a checkpoint that holds a state dict under {inner[0]!r}. Save that alone: "
            f"torch.save(torch.load(CHECKPOINT)[{inner[0]!r}], PATH)."
        )
    raise UserError(f"{path} holds no state dict. {_EXPECTED}")


def _is_state(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(isinstance(each, Tensor) for each in value.values())


def load_state(model: nn.Module, state: Mapping[str, Tensor], origin: str) -> None:
    """Load a state dict into the model.

    Raises:
        UserError: names or shapes do not fit, a value is NaN or infinite, or a weight that the model shares has two
            values; the first offender is named.
    """
    expected = model.state_dict()
    missing = [name for name in expected if name not in state]
    surplus = [name for name in state if name not in expected]
    if missing or surplus:
        _refuse_prefix(expected, state, origin)
        what = f"lacks '{missing[0]}'" if missing else f"has '{surplus[0]}', which the model has not"
        raise UserError(f"{origin} does not fit the model: it {what}. Expected: the model's own state_dict().")
    for name, value in state.items():
        if not isinstance(value, Tensor) or value.shape != expected[name].shape:
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise UserError(
                f"{origin} does not fit the model: '{name}' is {shape}, the model's is {tuple(expected[name].shape)}."
            )
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise UserError(f"{origin}: '{name}' holds NaN or infinite values. Give the weights of a finite network.")
    for other, name in other_names(model).items():
        if (state[other] != state[name]).any():
            raise UserError(
                f"{origin} does not fit the model: '{name}' and '{other}' differ, and the model shares one weight. "
                "Give the weights of a network that shares them."
            )
    model.load_state_dict(dict(state))


def _refuse_prefix(expected: Mapping[str, Tensor], state: Mapping[str, Tensor], origin: str) -> None:
    """Refuse the names of a wrapper, such as DataParallel or torch.compile, with the line that takes its prefix off."""
    first = next(iter(expected))
    names = [name for name in state if isinstance(name, str)]  # a file may hold others
    for prefix in [name.removesuffix(first) for name in names if name.endswith(f".{first}")]:
        if {f"{prefix}{name}" for name in expected} == set(state):
            raise UserError(
                f"{origin} does not fit the model: every name begins with {prefix!r}, which a wrapper put there. Strip "
                f"it: torch.save({{name.removeprefix({prefix!r}): value for name, value in torch.load(PATH).items()}}, "
                "STRIPPED)."
            )
