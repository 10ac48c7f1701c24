"""Refuse networks whose loss is not a fixed mean over examples, naming the module at fault.

A Hessian-vector product is linear in its vector only while the function stays the same between two products, and a
mean over examples only while no example sees its neighbours in the batch.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

# Two passes over the same examples agree to rounding, whatever order a kernel sums in; noise layers differ by far more.
_RELATIVE_DIFFERENCE = 1e-3

# Random whatever the mode; two passes may agree by chance, so these are known by type.
_ALWAYS_RANDOM = (nn.FractionalMaxPool2d, nn.FractionalMaxPool3d)

_Call = tuple[str, object, object]  # module name, its inputs, its output


def refuse_nondeterministic(model: nn.Module, forward: Callable[[], object]) -> None:
    """Put a network in eval mode and check that it then is a fixed function of each single example.

    Args:
        model: the network; left in eval mode.
        forward: runs the network on a few fixed examples; called twice, and every module's result is compared.

    Raises:
        ValueError: a module stays in training mode, normalises by the batch, or gives two results for one input.

    Cost: two forward passes of `forward`, with all their activations held.
    """
    model.eval()
    for name, module in model.named_modules():
        if module.training:
            raise ValueError(f"{_label(name, module)} stays in training mode after eval(). Expected: a fixed function.")
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
            raise ValueError(
                f"{_label(name, module)} has no running statistics, so an example's loss depends on its batch. "
                "Expected: track_running_stats=True."
            )
        if isinstance(module, _ALWAYS_RANDOM):
            _refuse_random(name, module)
    culprit = _first_stochastic(model, forward)
    if culprit is not None:
        _refuse_random(culprit, model.get_submodule(culprit))


def _refuse_random(name: str, module: nn.Module) -> None:
    raise ValueError(
        f"{_label(name, module)} is random in eval mode. Expected: equal results for equal inputs; remove its noise."
    )


def _label(name: str, module: nn.Module) -> str:
    return f"Module '{name or '(the network itself)'}' ({type(module).__name__})"


def _first_stochastic(model: nn.Module, forward: Callable[[], object]) -> str | None:
    """Name the innermost module that was given equal inputs in two passes and answered differently."""
    first, second = _recorded_calls(model, forward), _recorded_calls(model, forward)
    if len(first) != len(second):
        return ""
    for (name, inputs, output), (_, other_inputs, other_output) in zip(first, second, strict=True):
        if _agree(inputs, other_inputs) and not _agree(output, other_output):
            return name
    return None


def _recorded_calls(model: nn.Module, forward: Callable[[], object]) -> list[_Call]:
    calls: list[_Call] = []

    def record(name: str, _module: nn.Module, inputs: object, output: object) -> None:
        calls.append((name, _frozen(inputs), _frozen(output)))

    handles = [module.register_forward_hook(partial(record, name)) for name, module in model.named_modules()]
    try:
        with torch.no_grad():
            forward()
    finally:
        for handle in handles:
            handle.remove()
    return calls


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
