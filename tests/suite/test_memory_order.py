"""The memory order of filters changes within and comes back, in the very memory it was in."""

import pytest
import torch
from torch import nn

from suite.memory_order import channels_last, in_order_of


def network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))


def test_filters_are_channels_last_within_and_contiguous_after() -> None:
    model = network()
    weight = model[0].weight
    view, where = weight.detach(), weight.data_ptr()
    with channels_last(model) as is_last:
        assert is_last
        assert weight.is_contiguous(memory_format=torch.channels_last)
        assert model[0].weight is weight
        with torch.no_grad():
            weight.add_(1)
    assert weight.data_ptr() == where
    assert weight.is_contiguous()
    assert torch.equal(view, weight)


def test_within_another_it_changes_nothing() -> None:
    model = network()
    with channels_last(model):
        with channels_last(model) as is_last:
            assert is_last
        assert model[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert model[0].weight.is_contiguous()


def test_a_failure_brings_the_order_back() -> None:
    model = network()
    with pytest.raises(ZeroDivisionError), channels_last(model):
        raise ZeroDivisionError
    assert model[0].weight.is_contiguous()


def test_a_network_without_convolutions_of_images_stays() -> None:
    with channels_last(nn.Sequential(nn.Flatten())) as is_last:
        assert not is_last


def test_outputs_agree_up_to_rounding() -> None:
    model = network().double().eval()
    inputs = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = model(inputs)
    with channels_last(model):
        assert torch.allclose(model(inputs), expected, rtol=1e-12, atol=1e-14)


def test_a_weight_takes_the_order_of_its_network() -> None:
    model = network()
    filters, matrix = model[0].weight.detach(), model[4].weight.detach()
    moved = in_order_of(model, filters)
    assert moved.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(moved, filters)
    assert in_order_of(model, matrix) is matrix
    assert in_order_of(nn.Sequential(nn.Flatten()), filters) is filters
