"""Loss and accuracy of a network before it is measured, and what is warned of."""

import logging

import pytest
import torch
from torch import nn

from suite.errors import UserError
from suite.measure.quality import quality_as_json
from suite.networks.loaded import Network
from suite.splits import Split


def _network(scale: float) -> Network:
    """Two logits that are right on all examples but one in eight; scale < 0: wrong on all but one in eight."""
    model = nn.utils.skip_init(nn.Linear, 2, 2, bias=False)
    model.weight.data = scale * torch.eye(2)
    targets = torch.arange(16) % 2
    inputs = nn.functional.one_hot(targets, 2).float()
    inputs[:2] = inputs[:2].flip(1)
    return Network(model.eval(), {"train": Split(inputs, targets)})


def test_loss_and_accuracy_are_those_of_all_examples(caplog: pytest.LogCaptureFixture) -> None:
    found = quality_as_json(_network(2.0), 0.1)
    right = float(nn.functional.cross_entropy(torch.tensor([[2.0, 0.0]]), torch.tensor([0])))
    assert found["accuracy"] == 14 / 16
    assert found["mean_loss_nats"] == pytest.approx((14 * right + 2 * (right + 2.0)) / 16)
    assert caplog.text == ""


def test_a_network_that_knows_nothing_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    assert quality_as_json(_network(-2.0), 0.1)["accuracy"] == 2 / 16
    assert "right on 12.5% of the training data, the most frequent class is 50.0%" in caplog.text


def test_a_loss_tolerance_of_rounding_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    quality_as_json(_network(2.0), 1e-9)
    assert "the loss tolerance, 1e-09 nats, is less than the rounding of the mean loss" in caplog.text


def test_a_loss_that_is_not_finite_is_refused() -> None:
    with pytest.raises(UserError, match=r"The mean loss is (nan|inf): the weights, finite as they are, have diverged"):
        quality_as_json(_network(3e38 * 10), 0.1)
