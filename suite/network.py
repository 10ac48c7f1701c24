"""Networks by name: building, initialising, and the prunable weights of any torch module."""

import hashlib
import importlib
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from suite.errors import UserError
from suite.extensions import load
from suite.seeds import derived_seed, generator
from suite.strict import Settings, validated

PRUNABLE_MODULES = (nn.Linear, nn.modules.conv._ConvNd)


class ModelSpec(Settings):
    """Which network: enough to build it again anywhere. Part of a cell's key."""

    name: str  # a file in suite/models, or module:function
    options: dict[str, Any] = Field(default_factory=dict)
    version: int = 1
    input_shape: tuple[int, ...]
    num_classes: int


def model_spec(name: str, options: Mapping[str, Any], input_shape: tuple[int, ...], num_classes: int) -> ModelSpec:
    """Check a model's name and options and return its spec with the options' defaults written out.

    Raises:
        UserError: an unknown name, an option that does not exist, a function that cannot be imported.
    """
    if ":" in name:
        version, checked = _source_version(_import_function(name)), dict(options)
    else:
        module = load("suite.models", name, "model")
        version = module.VERSION
        checked = validated(module.Options, options, f"model_options of {name}").model_dump(mode="json")
    return ModelSpec(name=name, options=checked, version=version, input_shape=input_shape, num_classes=num_classes)


def build_model(spec: ModelSpec, seed: int = 0) -> nn.Module:
    """Build the network of a spec in float32; parameters that are not re-initialised come from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, "build"))
        if ":" in spec.name:
            return build_user_model(spec.name, spec.options)
        module = load("suite.models", spec.name, "model")
        options = validated(module.Options, spec.options, f"model_options of {spec.name}")
        model: nn.Module = module.build(options, tuple(spec.input_shape), spec.num_classes)
        return model


def build_user_model(reference: str, options: Mapping[str, Any] | None = None) -> nn.Module:
    """Call a user's module:function and return the torch module it builds.

    Raises:
        UserError: it cannot be imported or called, or returns something else.
    """
    function = _import_function(reference)
    try:
        model = function(**(options or {}))
    except Exception as error:  # whatever the user's code raises is the user's to mend
        raise UserError(f"{reference} failed: {type(error).__name__}: {error}. Mend the function.") from error
    if not isinstance(model, nn.Module):
        raise UserError(f"{reference} returned {type(model).__name__}. Expected: a torch.nn.Module.")
    return model


def prunable_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the weights of all convolutions, linear layers and attention projections, by name, in module order.

    Biases and normalisation parameters are never prunable. A weight shared by two layers stands once.

    Raises:
        UserError: the model has none.
    """
    shared: set[int] = set()
    found: dict[str, nn.Parameter] = {}
    for module_name, module in model.named_modules():
        if isinstance(module, PRUNABLE_MODULES):
            names = ["weight"]
        elif isinstance(module, nn.MultiheadAttention):
            names = ["in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"]
        else:
            continue
        for name in names:
            weight = getattr(module, name)
            if isinstance(weight, nn.Parameter) and id(weight) not in shared:
                shared.add(id(weight))
                found[f"{module_name}.{name}" if module_name else name] = weight
    if not found:
        raise UserError(f"{type(model).__name__} has no prunable weights. Expected: a convolution or a linear layer.")
    return found


def num_prunable(spec: ModelSpec) -> int:
    """Return the number of prunable weights without allocating them where the model allows it."""
    try:
        with torch.device("meta"):
            model = build_model(spec)
    except (NotImplementedError, RuntimeError, UserError):  # a user's constructor may compute with its tensors
        model = build_model(spec)
    return sum(weight.numel() for weight in prunable_weights(model).values())


def initialise(model: nn.Module, preset: str, seed: int) -> None:
    """Initialise all prunable weights in place, their biases to zero, normalisation to the identity.

    Args:
        model: the network, changed in place.
        preset: "kaiming_normal" (fan in, gain sqrt 2), "signed_constant" (its signs times sqrt(2 / fan_in): Rare
            Gems, Sreenivasan et al. 2022), or "as_built" (what the model's constructor made).
        seed: the cell's seed; the numbers come from its "init" generator, in module order.
    """
    if preset == "as_built":
        return
    draw = generator(seed, "init")
    with torch.no_grad():
        for weight in prunable_weights(model).values():
            fan_in = math.prod(weight.shape[1:])
            values = torch.randn(weight.shape, generator=draw) * math.sqrt(2 / fan_in)
            if preset == "signed_constant":
                values = values.sign() * math.sqrt(2 / fan_in)
            weight.copy_(values)
        for module in model.modules():
            if isinstance(module, PRUNABLE_MODULES) and module.bias is not None:
                module.bias.zero_()
            elif isinstance(module, nn.modules.batchnorm._BatchNorm | nn.LayerNorm | nn.GroupNorm):
                module.reset_parameters()


def load_state(model: nn.Module, state: Mapping[str, Tensor], origin: str) -> None:
    """Load a state dict into the model.

    Raises:
        UserError: names or shapes do not fit, or a value is NaN or infinite; the first offender is named.
    """
    expected = model.state_dict()
    missing = [name for name in expected if name not in state]
    surplus = [name for name in state if name not in expected]
    if missing or surplus:
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
    model.load_state_dict(dict(state))


def _source_version(function: Any) -> int:
    """Return the version of a user's model: its module's VERSION, else a number that changes with the module's text."""
    module = sys.modules.get(function.__module__)
    if (stated := getattr(module, "VERSION", None)) is not None:
        return int(stated)
    path = getattr(module, "__file__", None)
    text = Path(path).read_bytes() if path else repr(function).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:6], "big")


def _import_function(reference: str) -> Any:
    """Import module:function, looking first in the working directory."""
    module_name, _, function_name = reference.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except Exception as error:
        raise UserError(
            f"{reference!r} cannot be imported: {type(error).__name__}: {error}. "
            "Expected: MODULE:FUNCTION, importable from the working directory or the environment."
        ) from error
    if not callable(function):
        raise UserError(f"{reference!r} is not a function. Expected: a function that returns a torch.nn.Module.")
    return function
