import pytest
import torch
from torch import nn

from suite.models.mlp import Options, build


def layers(hidden: tuple[int, ...], input_shape: tuple[int, ...] = (6,)) -> list[str]:
    with torch.device("meta"):
        model = build(Options(hidden=hidden), input_shape, 3)
    shown = {nn.Flatten: "flatten", nn.ReLU: "relu"}
    return [shown.get(type(layer)) or f"{layer.in_features}-{layer.out_features}" for layer in model.children()]


@pytest.mark.parametrize(
    ("hidden", "expected"),
    [
        ((), ["flatten", "6-3"]),
        ((5,), ["flatten", "6-5", "relu", "5-3"]),
        ((5, 4), ["flatten", "6-5", "relu", "5-4", "relu", "4-3"]),
    ],
)
def test_layers_alternate_with_relu_and_end_in_logits(hidden: tuple[int, ...], expected: list[str]) -> None:
    assert layers(hidden) == expected


def test_inputs_of_any_shape_are_flattened() -> None:
    assert layers((5,), (3, 4, 4)) == ["flatten", "48-5", "relu", "5-3"]


def test_every_layer_has_biases() -> None:
    with torch.device("meta"):
        model = build(Options(), (6,), 3)
    assert all(layer.bias is not None for layer in model.children() if isinstance(layer, nn.Linear))


def test_hidden_layers_default_to_lenet() -> None:
    assert Options().hidden == (300, 100)


@pytest.mark.parametrize("hidden", [[0], [-1], [2.5], ["a"]])
def test_widths_are_positive_whole_numbers(hidden: list[object]) -> None:
    with pytest.raises(ValueError, match="hidden"):
        Options.model_validate_json(f'{{"hidden": {hidden!r}}}'.replace("'", '"'))
