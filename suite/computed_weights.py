"""Layers whose weight cannot be counted: it has no shape yet, or is computed from others; each with its repair.

To leave such a layer out would be to measure another network than the user's.
"""

import re

from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from suite.curvature.determinism import label
from suite.errors import UserError

# What torch's older functions keep beside a weight, by the end of its name: what they are called, and their undoing.
_OLDER = {
    "_g": ("weight_norm", "torch.nn.utils.remove_weight_norm"),
    "_u": ("spectral_norm", "torch.nn.utils.remove_spectral_norm"),
    "_mask": ("prune", "torch.nn.utils.prune.remove"),
}


def refuse_lazy(model: nn.Module) -> None:
    """Refuse a network that has not seen its first batch.

    Raises:
        UserError: a module's parameters or buffers have no shape yet; it is named.
    """
    for name, module in model.named_modules():
        if any(is_lazy(each) for each in (*module.parameters(recurse=False), *module.buffers(recurse=False))):
            raise UserError(
                f"{label(name, module)} is lazy: its tensors have no shape yet. "
                "Run one batch through the network first."
            )


def computed_weight(name: str, module: nn.Module, weight: str) -> UserError:
    """Return the refusal of a layer whose weight is none of the network's parameters.

    Args:
        name: the module's.
        module: the layer.
        weight: the attribute, such as "weight" or "in_proj_weight".
    """
    kind, remove = _reparametrisation(module, weight)
    if kind is None:
        return UserError(
            f"{label(name, module)} has a {weight} that is no parameter of the network. "
            f"Make it one first: module.{weight} = torch.nn.Parameter(module.{weight})."
        )
    return UserError(
        f"{label(name, module)} is parametrised ({kind}); its {weight} is computed from others. "
        f"Remove it first: {remove}(module, '{weight}')."
    )


def _reparametrisation(module: nn.Module, weight: str) -> tuple[str | None, str]:
    """Return what computes a weight, and the function that undoes it."""
    if parametrize.is_parametrized(module, weight):
        kinds = ", ".join(_spelt(type(each).__name__) for each in getattr(module.parametrizations, weight))
        return kinds, "torch.nn.utils.parametrize.remove_parametrizations"
    return next((known for end, known in _OLDER.items() if hasattr(module, weight + end)), (None, ""))


def _spelt(name: str) -> str:
    """Return how a user wrote it: torch's own _WeightNorm comes of weight_norm."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name[1:]).lower() if name.startswith("_") else name
