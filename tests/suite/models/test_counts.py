"""Prunable weights of the published networks; the counts are from their papers and original code."""

from typing import Any

import pytest
import torch
from torch import nn

from suite.network import build_model, model_spec, num_prunable, prunable_weights

GREY, SMALL, TINY = (1, 28, 28), (3, 32, 32), (3, 64, 64)
ALEXNET_LINEAR = 6_400 * 4_096 + 4_096**2


@pytest.mark.parametrize(
    ("name", "options", "input_shape", "num_classes", "num_weights", "num_linear"),
    [
        ("fc5", {}, GREY, 10, 1_595_000, 1_595_000),
        ("fc5", {}, SMALL, 10, 3_883_000, 3_883_000),
        ("fc12", {}, GREY, 10, 4_975_000, 4_975_000),
        ("fc12", {}, SMALL, 10, 7_263_000, 7_263_000),
        ("lenet_300_100", {}, GREY, 10, 266_200, 266_200),
        ("mlpnet", {}, GREY, 10, 32_360, 32_360),
        ("alexnet", {}, SMALL, 10, 46_778_400, ALEXNET_LINEAR + 40_960),
        ("alexnet", {"dropout": 0.5}, SMALL, 10, 46_778_400, ALEXNET_LINEAR + 40_960),
        ("alexnet", {}, TINY, 200, 46_778_400 + 190 * 4_096, ALEXNET_LINEAR + 200 * 4_096),
        ("vgg16", {}, SMALL, 10, 14_715_584, 5_120),
        ("vgg16", {"biases": True}, SMALL, 10, 14_715_584, 5_120),
        ("vgg16", {"affine": False}, SMALL, 10, 14_715_584, 5_120),
        ("vgg16", {}, TINY, 200, 14_715_584 + 190 * 512, 200 * 512),
        ("vgg19", {}, SMALL, 10, 20_024_000, 5_120),
        ("vgg19", {}, SMALL, 100, 20_070_080, 51_200),
        ("vgg19", {}, TINY, 200, 20_024_000 + 190 * 512, 200 * 512),
        ("resnet32", {}, SMALL, 10, 1_855_584, 1_280),
        ("resnet32", {}, SMALL, 100, 1_867_104, 12_800),
        ("resnet32", {}, TINY, 200, 1_879_904, 25_600),
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


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("alexnet", {}),
        ("resnet18", {"stem": "3x3"}),
        ("resnet18", {"stem": "7x7"}),
        ("resnet32", {}),
        ("resnet50", {"stem": "3x3"}),
        ("resnet50", {"stem": "7x7"}),
        ("vgg16", {}),
        ("vgg19", {}),
    ],
)
def test_images_of_64_pixels_give_logits(name: str, options: dict[str, Any]) -> None:
    model = build_model(model_spec(name, options, TINY, 200)).eval()
    with torch.no_grad():
        assert model(torch.zeros(1, *TINY)).shape == (1, 200)


@pytest.mark.parametrize(("name", "num_tensors"), [("fc12", 12), ("vgg16", 14), ("vgg19", 17), ("resnet32", 34)])
def test_number_of_prunable_tensors(name: str, num_tensors: int) -> None:
    with torch.device("meta"):
        weights = prunable_weights(build_model(model_spec(name, {}, SMALL, 10)))
    assert len(weights) == num_tensors


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


@pytest.mark.parametrize(
    ("name", "options", "biased"),
    [
        ("mlpnet", {}, set()),
        ("lenet_300_100", {}, {nn.Linear}),
        ("fc12", {}, {nn.Linear}),
        ("alexnet", {}, {nn.Conv2d, nn.Linear}),
        ("vgg16", {}, {nn.Linear}),
        ("vgg16", {"biases": True}, {nn.Conv2d, nn.Linear}),
    ],
)
def test_which_layers_have_biases(name: str, options: dict[str, Any], biased: set[type[nn.Module]]) -> None:
    with torch.device("meta"):
        model = build_model(model_spec(name, options, SMALL, 10))
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert {type(layer) for layer in layers if layer.bias is not None} == biased
    assert all((layer.bias is not None) == (type(layer) in biased) for layer in layers)


@pytest.mark.parametrize("name", ["resnet18", "resnet20", "resnet32", "resnet50", "vgg16", "vgg19"])
def test_without_scale_and_shift_is_what_torch_makes(name: str) -> None:
    with torch.device("meta"):
        model = build_model(model_spec(name, {"affine": False}, SMALL, 10))
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    for norm in norms:
        assert (norm.affine, norm.weight, norm.bias) == (False, None, None)
        assert norm.state_dict().keys() == nn.BatchNorm2d(2, affine=False).state_dict().keys()
    others = [name for name, _ in model.named_parameters()]
    assert set(others) - set(prunable_weights(model)) == {others[-1]}  # the bias of the linear layer


def test_without_scale_and_shift_only_normalises() -> None:
    from suite.models._normalisation import without_scale_and_shift

    norm = nn.BatchNorm2d(3)
    norm.weight.data.fill_(5.0)
    inputs = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    outputs = without_scale_and_shift(nn.Sequential(norm))(inputs)
    assert torch.equal(outputs, nn.functional.batch_norm(inputs, None, None, training=True))


def test_alexnet_repeats_each_pixel_of_a_small_image_seven_times() -> None:
    with torch.device("meta"):
        first = next(build_model(model_spec("alexnet", {}, SMALL, 10)).children())
    inputs = torch.randn(1, *SMALL, generator=torch.Generator().manual_seed(0))
    assert torch.equal(first(inputs), inputs.repeat_interleave(7, dim=2).repeat_interleave(7, dim=3))


def test_vgg16_leaves_nothing_to_average_at_32_pixels_and_vgg19_four() -> None:
    sides = {}
    for name in ("vgg16", "vgg19"):
        with torch.device("meta"):
            model = build_model(model_spec(name, {}, SMALL, 10))
            mean = next(module for module in model.modules() if isinstance(module, nn.AdaptiveAvgPool2d))
            mean.register_forward_pre_hook(lambda _, args, name=name: sides.update({name: tuple(args[0].shape[1:])}))
            model.eval()(torch.zeros(1, *SMALL))
    assert sides == {"vgg16": (512, 1, 1), "vgg19": (512, 2, 2)}
