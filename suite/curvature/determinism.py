"""Refuse networks whose loss is not a fixed mean over examples, naming the module at fault.

A Hessian-vector product is linear in its vector only while the function stays the same between two products, and a
mean over examples only while no example sees its neighbours in the batch.
"""

import random
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

# Two passes over the same examples agree to rounding, whatever order a kernel sums in; noise layers differ by far more.
_RELATIVE_DIFFERENCE = 1e-3
IN_PLACE = (
    "changes its inputs in place, which are its caller's data. "
    "Expected: x = x - 0.1 instead of x -= 0.1 or x.sub_(0.1), and no inplace=True on inputs."
)


class _Call(NamedTuple):
    """One call of one module: whether random numbers were drawn, or the network's inputs changed, meanwhile."""

    name: str
    inputs: object
    output: object
    drew: bool
    changed: bool


def label(name: str, module: nn.Module) -> str:
    """Return how a refusal names a module."""
    return f"Module '{name or '(the network itself)'}' ({type(module).__name__})"


def refuse_changing_batches(batches: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Read the first batch that has any example twice, and refuse data that are augmented or shuffled on the way.

    Raises:
        ValueError: the two readings differ, or there is no second one.

    Cost: two readings up to the first batch.
    """
    first, second = (next((pair for pair in batches if len(pair[1])), None) for _ in range(2))
    if first is None:
        return
    if second is None or not all(map(_same, first, second)):
        raise ValueError(
            f"The batches ({type(batches).__name__}) differ when they are read twice. "
            "Expected: the same examples in every pass; no augmentation, no shuffling, no iterator that ends."
        )


def refuse_nondeterministic(model: nn.Module, forward: Callable[[Tensor], object], few: Tensor) -> None:
    """Put a network in eval mode and check that it then is a fixed function of each single example.

    Args:
        model: the network; left in eval mode.
        forward: runs the network; every module's result is compared between calls.
        few: a few fixed examples, shape (n, ...); with one example alone, its neighbours cannot be checked.

    Raises:
        ValueError: a module stays in training mode, normalises by the batch, changes the network's inputs in place,
            draws random numbers, gives two results for one input, or gives an example another result beside other
            examples.

    Cost: three forward passes over copies of the examples, with the activations of two held.
    """
    model.eval()
    for name, module in model.named_modules():
        if module.training:
            raise ValueError(f"{label(name, module)} stays in training mode after eval(). Expected: a fixed function.")
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
            raise ValueError(
                f"{label(name, module)} has no running statistics, so an example's loss depends on its batch. "
                "Expected: track_running_stats=True."
            )
    first = _recorded_calls(model, forward, few)
    culprit = _first_stochastic(first, _recorded_calls(model, forward, few))
    if culprit is not None:
        _refuse_random(culprit, model.get_submodule(culprit))
    if len(few) > 1:
        others = _recorded_calls(model, forward, few[:1].expand_as(few))
        culprit = _first_mixing(first, others)
        if culprit is not None:
            raise ValueError(
                f"{label(culprit, model.get_submodule(culprit))} gives an example another result beside other "
                "examples. Expected: no statistics of the batch in eval mode."
            )


def changed_in_place(copy: Tensor, original: Tensor) -> bool:
    """Return whether a clone has been changed since it was made, if only by an operation that changed no value yet."""
    return copy._version > 0 or not (copy.is_meta or _same(copy, original))


def _refuse_random(name: str, module: nn.Module) -> None:
    raise ValueError(
        f"{label(name, module)} is random in eval mode. Expected: equal results for equal inputs; remove its noise."
    )


def _first_stochastic(first: list[_Call], second: list[_Call]) -> str | None:
    """Name the innermost module that drew random numbers, or answered equal inputs differently in two passes.

    Numbers that were drawn are refused even where both passes agree: noise may be small, and rare.
    """
    drawing = next((call.name for call in first if call.drew), None)
    if drawing is not None:
        return drawing
    if len(first) != len(second):
        return ""
    for call, other in zip(first, second, strict=True):
        if _agree(call.inputs, other.inputs) and not _agree(call.output, other.output):
            return call.name
    return None


def _first_mixing(first: list[_Call], second: list[_Call]) -> str | None:
    """Name the innermost module whose first example changed though it was the same; the rest of the batch was not."""
    if _agree(_leading(first[-1].output), _leading(second[-1].output)):
        return None
    for call, other in zip(first, second, strict=False):
        same = _agree(_leading(call.inputs), _leading(other.inputs))
        if same and not _agree(_leading(call.output), _leading(other.output)):
            return call.name
    return ""


def _recorded_calls(model: nn.Module, forward: Callable[[Tensor], object], few: Tensor) -> list[_Call]:
    """Run the network on a copy of a few examples, and refuse it if it changes them."""
    calls: list[_Call] = []
    begun: list[tuple[object, int]] = []
    copy = few.clone()

    def begin(_module: nn.Module, _inputs: object) -> None:
        begun.append((_generator_states(few.device), copy._version))

    def record(name: str, _module: nn.Module, inputs: object, output: object) -> None:
        states, version = begun.pop()
        drew, changed = states != _generator_states(few.device), version != copy._version
        calls.append(_Call(name, _frozen(inputs), _frozen(output), drew, changed))

    handles = [module.register_forward_pre_hook(begin) for module in model.modules()]
    handles += [module.register_forward_hook(partial(record, name)) for name, module in model.named_modules()]
    try:
        with torch.no_grad():
            forward(copy)
    finally:
        for handle in handles:
            handle.remove()
    if changed_in_place(copy, few):
        culprit = next((call.name for call in calls if call.changed), "")  # an inner module returns first
        raise ValueError(f"{label(culprit, model.get_submodule(culprit))} {IN_PLACE}")
    return calls


def _generator_states(device: torch.device) -> tuple[object, ...]:
    """Return what changes when anybody draws from a global generator."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    _, keys, position, *_ = np.random.get_state()  # noqa: NPY002  this generator is the one that modules may use
    drawn = (state.numpy().tobytes() for state in states)
    return *drawn, random.getstate(), np.asarray(keys).tobytes(), position


def _frozen(value: object) -> object:
    """Copy tensors, because in-place activations overwrite what a hook was shown."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, tuple | list):
        return tuple(_frozen(item) for item in value)
    return None


def _agree(first: object, second: object) -> bool:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        if first.shape != second.shape:
            return False
        if not first.is_floating_point():
            return torch.equal(first, second)
        atol = _RELATIVE_DIFFERENCE * float(first.nan_to_num(0.0, 0.0, 0.0).abs().amax()) if first.numel() else 0.0
        return torch.allclose(first, second, rtol=0.0, atol=atol, equal_nan=True)
    if isinstance(first, tuple) and isinstance(second, tuple):
        return len(first) == len(second) and all(_agree(a, b) for a, b in zip(first, second, strict=True))
    return True


def _leading(value: object) -> object:
    """Return the first entry along the first dimension of every tensor: the first example, where batches come first."""
    if isinstance(value, Tensor):
        return value[:1] if value.ndim else value
    return tuple(_leading(item) for item in value) if isinstance(value, tuple) else value


def _same(one: Tensor, other: Tensor) -> bool:
    return one is other or torch.equal(one.nan_to_num(), other.nan_to_num())
