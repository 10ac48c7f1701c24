from pathlib import Path

import pytest
import torch
from torch import nn

from suite.errors import UserError
from suite.network import (
    ModelSpec,
    build_model,
    build_user_model,
    model_spec,
    num_prunable,
    prunable_weights,
)


class Mixed(nn.Module):
    """Every kind of layer that is or is not prunable."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, groups=1)
        self.norm = nn.BatchNorm2d(4)
        self.up = nn.ConvTranspose1d(2, 3, 2)
        self.attention = nn.MultiheadAttention(4, 2)
        self.embedding = nn.Embedding(5, 4)
        self.first = nn.Linear(4, 4)
        self.tied = nn.Linear(4, 4)
        self.tied.weight = self.first.weight


NET = """
import torch
from torch import nn
VERSION = 3
def build(width=4):
    return nn.Sequential(nn.Linear(6, width), nn.Linear(width, 3))
def careful():
    model = build()
    assert model[0].weight.abs().max().item() < 1
    return model
def reader():
    return nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), nn.Linear(24, 3, bias=False))
def broken():
    raise KeyError("width")
def no_module():
    return 3
class Shifting(nn.Linear):
    def forward(self, inputs):
        return super().forward(inputs.mul_(2))
def shifting():
    return Shifting(6, 3)
CONSTANT = 3
"""


@pytest.fixture
def user_net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"user_net_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(NET)
    monkeypatch.syspath_prepend(tmp_path)
    return name


def small(seed: int = 0) -> nn.Module:
    return build_model(model_spec("mlp", {"hidden": [50]}, (40,), 30), seed)


def test_prunable_are_weights_of_layers_and_projections_each_once() -> None:
    with torch.random.fork_rng(devices=[]):
        found = prunable_weights(Mixed())
    assert list(found) == [
        "conv.weight",
        "up.weight",
        "attention.in_proj_weight",
        "attention.out_proj.weight",
        "first.weight",
    ]


def test_a_single_layer_is_a_network() -> None:
    with torch.device("meta"):
        assert list(prunable_weights(nn.Linear(2, 3))) == ["weight"]


def test_a_network_without_prunable_weights() -> None:
    with pytest.raises(UserError, match=r"^Sequential has no prunable weights\. Expected: a convolution or a linear"):
        prunable_weights(nn.Sequential(nn.ReLU(), nn.BatchNorm1d(3)))


@pytest.mark.parametrize(
    ("hidden", "features", "weights"),
    [
        ((300, 100), 784, 266_200),  # LeNet-300-100
        ((1000, 600, 300, 100), 784, 1_595_000),  # FC5
        ((1000, 600, 300, 100), 3072, 3_883_000),
        ((1000, 900, 800, 750, 700, 650, 600, 500, 400, 200, 100), 784, 4_975_000),  # FC12
        ((1000, 900, 800, 750, 700, 650, 600, 500, 400, 200, 100), 3072, 7_263_000),
        ((), 6, 60),
    ],
)
def test_published_networks_have_their_number_of_weights(hidden: tuple[int, ...], features: int, weights: int) -> None:
    assert num_prunable(model_spec("mlp", {"hidden": list(hidden)}, (features,), 10)) == weights


def test_a_spec_writes_out_defaults_and_the_version() -> None:
    spec = model_spec("mlp", {}, (64,), 10)
    assert spec == ModelSpec(name="mlp", options={"hidden": [300, 100]}, version=1, input_shape=(64,), num_classes=10)


def test_the_same_seed_builds_the_same_network() -> None:
    first, again, other = small(1).state_dict(), small(1).state_dict(), small(2).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)


def test_a_user_s_function_is_built_with_its_options_and_version(user_net: str) -> None:
    spec = model_spec(f"{user_net}:build", {"width": 5}, (6,), 3)
    assert spec.version == 3
    assert num_prunable(spec) == 45
    first, again = build_model(spec, 4), build_model(spec, 4)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))


def test_a_user_s_constructor_may_look_at_its_weights(user_net: str) -> None:
    # It cannot be counted without memory, so it is built.
    assert num_prunable(model_spec(f"{user_net}:careful", {}, (6,), 3)) == 36


def test_a_network_of_token_ids_is_tried_on_token_ids(user_net: str) -> None:
    spec = model_spec(f"{user_net}:reader", {}, (6,), 3)
    assert num_prunable(spec, torch.int64) == 72
    with pytest.raises(UserError, match=r"does not take inputs of shape \(6,\): .*Mend the model\."):
        num_prunable(spec)


def test_a_network_that_would_change_its_data_is_refused_when_a_study_is_planned(user_net: str) -> None:
    with pytest.raises(UserError, match=r":shifting changes its inputs in place, .*Expected: x = x - 0\.1 instead of"):
        num_prunable(model_spec(f"{user_net}:shifting", {}, (6,), 3))


@pytest.mark.parametrize(
    ("function", "line"),
    [
        ("broken", ".py, line 14: KeyError: 'width'. Mend the function."),
        ("no_module", "no_module returned int. Expected: a torch.nn.Module."),
        ("missing", "has no 'missing'"),
        ("CONSTANT", "is not a function. Expected: a function that returns a torch.nn.Module."),
        ("", "names no function"),
    ],
)
def test_a_user_s_function_that_does_not_work(user_net: str, function: str, line: str) -> None:
    with torch.random.fork_rng(devices=[]), pytest.raises(UserError) as caught:
        build_user_model(f"{user_net}:{function}")
    assert line in str(caught.value)


def test_options_that_a_user_s_function_does_not_take(user_net: str) -> None:
    with pytest.raises(UserError, match=r"failed: TypeError: .*'depth'"):
        build_user_model(f"{user_net}:build", {"depth": 3})
