"""Floating-point operations of training, counted per prunable weight tensor and weighted by what a mask keeps."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from suite.network import PRUNABLE_MODULES, ModelSpec, build_model, prunable_weights, shapes_only
from suite.pruning.masks import Masks
from suite.splits import Examples, Split

BACKWARD_FACTOR = 3  # forward, gradient of the inputs, gradient of the weights: the same number of products each


def forward_flops(model: nn.Module, examples: Examples) -> dict[str, float]:
    """Return the operations of one example's forward pass, by prunable weight; a multiply-add counts two.

    Args:
        model: any network; modules that are used twice count twice.
        examples: at least one; the pass is run on the first.

    Cost: one forward pass of one example. Attention's own products and activations are not counted.
    """
    names = {id(weight): name for name, weight in prunable_weights(model).items()}
    flops = dict.fromkeys(names.values(), 0.0)

    def count(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(module: nn.Module, args: Any, output: Tensor) -> None:
            weight = module.weight
            assert isinstance(weight, Tensor)
            # A transposed convolution scatters: its weights are (inputs, outputs, ...), used once per input position.
            positions = (args[0] if getattr(module, "transposed", False) else output).numel() / weight.shape[0]
            flops[name] += 2 * weight.numel() * positions

        return hook

    hooks = [
        module.register_forward_hook(count(names[id(module.weight)]))
        for module in model.modules()
        if isinstance(module, PRUNABLE_MODULES) and id(module.weight) in names
    ]
    was_training = model.training
    try:
        with torch.no_grad():
            model.eval()(examples.part(slice(1)).network_inputs())
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return flops


def example_flops(spec: ModelSpec, input_dtype: torch.dtype) -> float:
    """Return the operations of one example's forward pass through all prunable weights.

    Args:
        spec: of the network.
        input_dtype: as the network takes its inputs; zeros of it are tried.

    Cost: one forward pass of one example where the network is a user's own, no more than its shapes else.
    """
    with shapes_only(spec):
        inputs = torch.zeros((1, *spec.input_shape), dtype=input_dtype)
        split = Split(inputs, torch.zeros(1, dtype=torch.long))
        return sum(forward_flops(build_model(spec), split).values())


def training_flops(per_example: dict[str, float], masks: Masks | None, num_examples: int) -> float:
    """Return the operations of training on num_examples examples with each layer weighted by its kept fraction."""
    kept = {name: 1.0 if masks is None else float(masks[name].float().mean()) for name in per_example}
    return BACKWARD_FACTOR * num_examples * sum(flops * kept[name] for name, flops in per_example.items())
