"""Networks by name: building, and the prunable weights of any torch module."""

import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from suite.computed_weights import computed_weight, refuse_lazy
from suite.curvature.determinism import IN_PLACE, changed_in_place
from suite.errors import UserError, first_line, users_line
from suite.extensions import load
from suite.reference import import_function
from suite.seeds import derived_seed
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
        version, checked = _source_version(import_function(name)), dict(options)
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
    function = import_function(reference)
    try:
        model = function(**(options or {}))
    except (Exception, SystemExit) as error:  # whatever the user's code raises is the user's to mend
        where = users_line(error) and f" in {users_line(error)}"
        what = f"{type(error).__name__}: {str(error).strip().rstrip('.')}"
        raise UserError(f"{reference} failed{where}: {what}. Mend the function.") from error
    if not isinstance(model, nn.Module):
        raise UserError(f"{reference} returned {type(model).__name__}. Expected: a torch.nn.Module.")
    return model


def prunable_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the weights of all convolutions, linear layers and attention projections, by name, in module order.

    Biases and normalisation parameters are never prunable. A weight shared by two layers stands once, also where it is
    an embedding's table as well; names are those of named_parameters().

    Raises:
        UserError: the model has none, or a layer's weight is no parameter of it, or has no shape yet.
    """
    refuse_lazy(model)
    known = {id(parameter): name for name, parameter in model.named_parameters()}
    found: dict[str, nn.Parameter] = {}
    for module_name, module in model.named_modules():
        for attribute in _prunable_attributes(module):
            weight = module._parameters.get(attribute)  # an attribute may be computed, at a cost and with side effects
            if weight is None:
                raise computed_weight(module_name, module, attribute)
            found[known[id(weight)]] = weight
    if not found:
        raise UserError(f"{type(model).__name__} has no prunable weights. Expected: a convolution or a linear layer.")
    return found


def _prunable_attributes(module: nn.Module) -> list[str]:
    if isinstance(module, PRUNABLE_MODULES):
        return ["weight"]
    if not isinstance(module, nn.MultiheadAttention):
        return []
    # One for queries, keys and values, or one for each: the others are None.
    projections = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
    return [name for name in projections if module._parameters.get(name, ...) is not None]


def other_names(model: nn.Module) -> dict[str, str]:
    """Return the names under which a shared parameter stands again in a state dict, each with the one that counts."""
    known = {id(parameter): name for name, parameter in model.named_parameters()}
    every = model.named_parameters(remove_duplicate=False)
    return {name: known[id(parameter)] for name, parameter in every if known[id(parameter)] != name}


def shapes_only(spec: ModelSpec) -> torch.device:
    """Return the device on which a network is built and tried where only its shapes are asked for; a context as well.

    That of a file in suite/models takes no memory there; a user's code may compute with its tensors.
    """
    return torch.device("cpu" if ":" in spec.name else "meta")


def num_prunable(spec: ModelSpec, input_dtype: torch.dtype = torch.float32) -> int:
    """Return the number of prunable weights, without allocating them where the model allows it.

    Args:
        spec: the network.
        input_dtype: of the inputs that it will be given; zeros of it are tried.

    Raises:
        UserError: the model does not take inputs of the data's shape, or has fewer logits than there are classes.
    """
    with shapes_only(spec):
        return _num_checked(build_model(spec), spec, torch.zeros((2, *spec.input_shape), dtype=input_dtype))


def _num_checked(model: nn.Module, spec: ModelSpec, inputs: Tensor) -> int:
    prunable = prunable_weights(model)
    check_logits(model, inputs, spec.num_classes, spec.name)
    return sum(weight.numel() for weight in prunable.values())


def check_logits(model: nn.Module, inputs: Tensor, num_classes: int, name: str) -> None:
    """Try a network, in eval mode, on a few examples.

    Args:
        model: left in the mode it was in.
        inputs: shape (n, *shape), of the data.
        num_classes: of the data.
        name: how the user named the model.

    Raises:
        UserError: it does not take the inputs, changes them, or returns something else than logits (n, at least
            num_classes).
    """
    was_training, shape, copy = model.training, tuple(inputs.shape[1:]), inputs.clone()
    try:
        with torch.no_grad():
            logits = model.eval()(copy)
    except (Exception, SystemExit) as error:  # whatever the user's forward raises is the user's to mend
        exits = "it ends Python: SystemExit " if isinstance(error, SystemExit) else ""
        what = exits + first_line(error) + (users_line(error) and f" ({users_line(error)})")
        repair = "Mend the model."
        if not inputs.is_floating_point():
            repair = f"A model is given {inputs.dtype} as it is: mend the model, or scale images to floats."
        raise UserError(f"{name} does not take inputs of shape {shape}: {what}. {repair}") from error
    finally:
        model.train(was_training)
    if changed_in_place(copy, inputs):
        raise UserError(f"{name} {IN_PLACE}")
    if not isinstance(logits, Tensor) or logits.shape[:-1] != inputs.shape[:1] or logits.shape[-1] < num_classes:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise UserError(
            f"{name} returned {got} for {len(inputs)} inputs. Expected: logits ({len(inputs)}, classes) for at least "
            f"{num_classes} classes."
        )


def _source_version(function: Any) -> int:
    """Return the version of a user's model: its module's VERSION, else a number that changes with the module's text."""
    module = sys.modules.get(function.__module__)
    if (stated := getattr(module, "VERSION", None)) is not None:
        return int(stated)
    path = getattr(module, "__file__", None)
    text = Path(path).read_bytes() if path else repr(function).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:6], "big")
