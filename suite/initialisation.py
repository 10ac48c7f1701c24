"""Initial weights by name: the presets of the original codes, so that every method can start where its original did."""

import math

import torch
from torch import Tensor, nn

from suite.network import PRUNABLE_MODULES, prunable_weights
from suite.seeds import generator
from suite.study import Initialisation

CLASSIFIER_STD = 0.01  # of the last linear layer, in Smart-Ratio's code
NORMALISATION = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)


def initialise(model: nn.Module, preset: Initialisation, seed: int) -> None:
    """Initialise all prunable weights in place, their biases to zero, normalisation to the identity.

    All presets scale the same standard normal numbers, so that two networks of one seed differ by the preset alone.

    Args:
        model: the network, changed in place.
        preset: the standard deviation of each layer's weights, and what else is special:
            "kaiming_normal": sqrt(2 / fan_in) (LOMP; Rare Gems' IMP).
            "signed_constant": the signs of kaiming_normal times sqrt(2 / fan_in) (Rare Gems).
            "kaiming_fan_out": sqrt(2 / fan_out), the classifier 0.01 (Smart-Ratio's ResNets).
            "kaiming_small_classifier": sqrt(2 / fan_in), the classifier 0.01 (Smart-Ratio's VGGs).
            "kaiming_uniform_gamma": sqrt(2 / fan_in), scales of batch normalisation uniform on [0, 1] (Frankle's IMP).
            "kaiming_double_variance": 2 / sqrt(fan_in) (Rare Gems' Smart-Ratio).
            "as_built": what the model's constructor made; nothing is changed.
        seed: the cell's seed; weights come from its "init" generator, in module order, scales from "init", "gamma".

    The classifier is the last prunable weight if it is a matrix. Differs: biases of linear layers are zero where
    Frankle's IMP leaves torch's own.
    """
    if preset == "as_built":
        return
    draw, prunable = generator(seed, "init"), prunable_weights(model)
    classifier = list(prunable)[-1]
    with torch.no_grad():
        for name, weight in prunable.items():
            is_classifier = name == classifier and weight.ndim == 2
            weight.copy_(_values(weight, preset, draw, is_classifier=is_classifier))
        for module in model.modules():
            if isinstance(module, PRUNABLE_MODULES) and module.bias is not None:
                module.bias.zero_()
            elif isinstance(module, NORMALISATION):
                module.reset_parameters()
        if preset == "kaiming_uniform_gamma":
            _draw_scales(model, generator(seed, "init", "gamma"))


def _values(weight: Tensor, preset: Initialisation, draw: torch.Generator, *, is_classifier: bool) -> Tensor:
    fan_in = math.prod(weight.shape[1:])
    std = math.sqrt(2 / fan_in)
    values = torch.randn(weight.shape, generator=draw)
    if is_classifier and preset in ("kaiming_fan_out", "kaiming_small_classifier"):
        return values * CLASSIFIER_STD
    if preset == "kaiming_fan_out":
        fan_out = weight.shape[0] * math.prod(weight.shape[2:])
        return values * math.sqrt(2 / fan_out)
    if preset == "kaiming_double_variance":
        return values * (math.sqrt(2) * std)
    values = values * std
    return values.sign() * std if preset == "signed_constant" else values


def _draw_scales(model: nn.Module, draw: torch.Generator) -> None:
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine:
            module.weight.copy_(torch.rand(module.weight.shape, generator=draw))
