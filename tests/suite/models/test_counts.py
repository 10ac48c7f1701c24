"""Prunable weights of the published networks; the counts are from their papers and original code."""

from typing import Any

import pytest
import torch

from suite.network import build_model, model_spec, num_prunable, prunable_weights

SMALL, TINY = (3, 32, 32), (3, 64, 64)


@pytest.mark.parametrize(
    ("name", "options", "input_shape", "num_classes", "num_weights", "num_linear"),
    [
        ("fc5", {}, (1, 28, 28), 10, 1_595_000, 1_595_000),
        ("fc5", {}, SMALL, 10, 3_883_000, 3_883_000),
        ("resnet18", {}, SMALL, 10, 11_164_352, 5_120),
        ("resnet18", {}, SMALL, 100, 11_210_432, 51_200),
        ("resnet18", {"stem": "7x7"}, TINY, 200, 11_269_312, 102_400),
        ("resnet18", {"stem": "7x7", "shortcut": "padding"}, TINY, 200, 11_269_312 - 172_032, 102_400),
        ("resnet20", {}, SMALL, 10, 268_336, 640),
        ("resnet20", {"shortcut": "convolution"}, SMALL, 10, 270_896, 640),
        ("resnet50", {}, SMALL, 100, 23_652_032, 204_800),
        ("resnet50", {"stem": "7x7"}, TINY, 200, 23_864_512, 409_600),
    ],
)
def test_prunable_weights(
    name: str,
    options: dict[str, Any],
    input_shape: tuple[int, ...],
    num_classes: int,
    num_weights: int,
    num_linear: int,
) -> None:
    spec = model_spec(name, options, input_shape, num_classes)
    assert num_prunable(spec) == num_weights
    with torch.device("meta"):
        weights = prunable_weights(build_model(spec))
    assert sum(weight.numel() for weight in weights.values() if weight.ndim == 2) == num_linear


@pytest.mark.parametrize("stem", ["3x3", "7x7"])
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_images_of_64_pixels_give_logits(name: str, stem: str) -> None:
    model = build_model(model_spec(name, {"stem": stem}, TINY, 200)).eval()
    with torch.no_grad():
        assert model(torch.zeros(1, *TINY)).shape == (1, 200)


def test_shortcuts_of_resnet50_hold_the_published_number_of_weights() -> None:
    with torch.device("meta"):
        weights = prunable_weights(build_model(model_spec("resnet50", {}, SMALL, 100)))
    assert sum(weight.numel() for name, weight in weights.items() if "shortcut" in name) == 2_768_896


def test_padding_keeps_every_second_pixel_between_zero_channels() -> None:
    from suite.models._resnet import Padding

    inputs = torch.arange(32.0).reshape(1, 2, 4, 4)
    outputs = Padding(2, 4, 2)(inputs)
    assert outputs.shape == (1, 4, 2, 2)
    assert torch.equal(outputs[:, 1:3], inputs[:, :, ::2, ::2])
    assert not outputs[:, [0, 3]].any()
