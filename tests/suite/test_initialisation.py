"""Moments of every preset against its closed form, and what each preset leaves alone."""

import math
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from suite.initialisation import initialise
from suite.network import build_model, model_spec, prunable_weights
from suite.study import Initialisation

PRESETS = get_args(Initialisation)


def small(seed: int = 0) -> nn.Module:
    return build_model(model_spec("mlp", {"hidden": [50]}, (40,), 30), seed)


def convolutional() -> nn.Module:
    """Convolutions whose fan-in and fan-out differ, one of them grouped, a hidden linear layer and a classifier."""
    with torch.random.fork_rng(devices=[]):
        return nn.Sequential(
            nn.Conv2d(8, 32, (3, 2)),
            nn.BatchNorm2d(32),
            nn.Conv2d(32, 16, 3, groups=4),
            nn.Flatten(),
            nn.Linear(64, 48),
            nn.Linear(48, 20),
        )


def initialised(preset: Initialisation, seed: int = 3) -> dict[str, Tensor]:
    model = convolutional()
    initialise(model, preset, seed)
    return {name: value.detach().double() for name, value in model.state_dict().items()}


FAN_IN = {"0": 8 * 6, "2": 8 * 9, "4": 64, "5": 48}
FAN_OUT = {"0": 32 * 6, "2": 16 * 9, "4": 48, "5": 20}
KAIMING = {layer: math.sqrt(2 / fan) for layer, fan in FAN_IN.items()}
STDS = {
    "kaiming_normal": KAIMING,
    "signed_constant": KAIMING,
    "kaiming_fan_out": {layer: math.sqrt(2 / fan) for layer, fan in FAN_OUT.items()} | {"5": 0.01},
    "kaiming_small_classifier": KAIMING | {"5": 0.01},
    "kaiming_uniform_gamma": KAIMING,
    "kaiming_double_variance": {layer: 2 / math.sqrt(fan) for layer, fan in FAN_IN.items()},
}


def test_every_preset_has_its_closed_form_here() -> None:
    assert {*STDS, "as_built"} == set(PRESETS)


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("preset", STDS)
def test_mean_and_variance_of_each_layer(preset: Initialisation, seed: int) -> None:
    state = initialised(preset, seed)
    for layer, std in STDS[preset].items():
        weight = state[f"{layer}.weight"]
        assert abs(float(weight.mean())) < 4 * std / math.sqrt(weight.numel())
        relative = float(weight.square().mean()) / std**2
        assert abs(relative - 1) < 4 * math.sqrt(2 / weight.numel())
        assert not state[f"{layer}.bias"].any()


@pytest.mark.parametrize("preset", STDS)
def test_presets_of_one_seed_scale_the_same_numbers(preset: Initialisation) -> None:
    plain, other = initialised("kaiming_normal"), initialised(preset)
    for layer in FAN_IN:
        assert torch.equal(plain[f"{layer}.weight"].sign(), other[f"{layer}.weight"].sign())


@pytest.mark.parametrize("preset", [preset for preset in STDS if preset != "kaiming_uniform_gamma"])
def test_normalisation_begins_as_the_identity(preset: Initialisation) -> None:
    state = initialised(preset)
    assert torch.equal(state["1.weight"], torch.ones(32, dtype=torch.float64))
    assert not state["1.bias"].any()


def test_scales_are_uniform_and_weights_those_of_kaiming_normal() -> None:
    with torch.random.fork_rng(devices=[]):
        model = nn.Sequential(nn.Conv2d(1, 4000, 1), nn.BatchNorm2d(4000))
    initialise(model, "kaiming_uniform_gamma", 3)
    scales = model.state_dict()["1.weight"].double()
    assert float(scales.min()) >= 0
    assert float(scales.max()) <= 1
    assert abs(float(scales.mean()) - 1 / 2) < 4 * math.sqrt(1 / 12 / 4000)
    assert abs(float(scales.square().mean()) - 1 / 3) < 4 * math.sqrt(4 / 45 / 4000)  # E[u^4] - E[u^2]^2
    plain, uniform = initialised("kaiming_normal"), initialised("kaiming_uniform_gamma")
    assert {name for name in plain if not torch.equal(plain[name], uniform[name])} == {"1.weight"}


def test_normalisation_without_scale_has_none_to_draw() -> None:
    with torch.random.fork_rng(devices=[]):
        model = nn.Sequential(nn.Conv2d(1, 4, 1), nn.BatchNorm2d(4, affine=False))
    initialise(model, "kaiming_uniform_gamma", 3)
    assert "1.weight" not in model.state_dict()


@pytest.mark.parametrize("mode", ["fan_in", "fan_out"])
def test_fans_are_those_of_torch(mode: str) -> None:
    # An independent count: the standard deviation that torch's own function draws with.
    preset: Initialisation = "kaiming_normal" if mode == "fan_in" else "kaiming_fan_out"
    for layer, module in convolutional().named_children():
        if layer in ("0", "2", "4"):
            fan = nn.init._calculate_correct_fan(module.weight, mode)
            assert math.sqrt(2 / fan) == pytest.approx(STDS[preset][layer], rel=1e-12)


def test_a_network_that_ends_in_a_convolution_has_no_classifier() -> None:
    with torch.random.fork_rng(devices=[]):
        model = nn.Sequential(nn.Linear(40, 40), nn.Conv2d(40, 10, 1))
    initialise(model, "kaiming_small_classifier", 3)
    for weight in prunable_weights(model).values():
        assert float(weight.detach().std()) > 0.1


def test_signed_constant_is_the_sign_of_kaiming_normal() -> None:
    normal, signed = small(), small()
    initialise(normal, "kaiming_normal", 3)
    initialise(signed, "signed_constant", 3)
    for drawn, weight in zip(prunable_weights(normal).values(), prunable_weights(signed).values(), strict=True):
        assert torch.equal(weight, drawn.sign() * math.sqrt(2 / weight.shape[1]))


def test_fan_in_of_a_convolution_counts_its_window() -> None:
    with torch.random.fork_rng(devices=[]):
        model = nn.Conv2d(6, 4, (3, 2), groups=2)
    initialise(model, "signed_constant", 0)
    assert torch.allclose(model.weight.abs(), torch.tensor(math.sqrt(2 / (3 * 3 * 2))))


def test_as_built_is_left_alone_and_normalisation_is_reset() -> None:
    with torch.random.fork_rng(devices=[]):
        norm = nn.BatchNorm1d(4)
        model = nn.Sequential(nn.Linear(3, 4), norm)
    assert norm.running_mean is not None
    norm.running_mean.fill_(5)
    norm.weight.data.fill_(2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    initialise(model, "as_built", 0)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    initialise(model, "kaiming_normal", 0)
    assert not norm.running_mean.any()
    assert torch.equal(norm.weight, torch.ones(4))


def test_initial_weights_depend_on_the_seed_alone() -> None:
    built_by_one, built_by_two = small(1), small(2)
    for model in (built_by_one, built_by_two):
        initialise(model, "kaiming_normal", 3)
    state = built_by_two.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in built_by_one.state_dict().items())
