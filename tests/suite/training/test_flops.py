from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from suite.splits import Split
from suite.training.flops import forward_flops, training_flops


class Twice(nn.Module):
    """Uses one layer twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.layer(self.layer(inputs))
        return outputs


def flops(model: nn.Module, *shape: int) -> dict[str, float]:
    return forward_flops(model, Split(torch.zeros(3, *shape), torch.zeros(3, dtype=torch.int64)))


@pytest.fixture(autouse=True)
def constructors_may_draw() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        yield


def test_a_multilayer_perceptron_by_hand() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    assert flops(model, 2, 3) == {"1.weight": 2 * 6 * 8, "3.weight": 2 * 8 * 3}


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (nn.Conv2d(3, 5, 3), (3, 8, 8), 2 * 3 * 5 * 9 * 6 * 6),
        (nn.Conv2d(3, 5, 3, stride=2, padding=1), (3, 8, 8), 2 * 3 * 5 * 9 * 4 * 4),
        (nn.Conv2d(4, 8, 3, groups=4, padding=1), (4, 5, 5), 2 * 1 * 8 * 9 * 5 * 5),
        (nn.Conv1d(2, 7, 4), (2, 10), 2 * 2 * 7 * 4 * 7),
        (nn.ConvTranspose2d(3, 5, 2, stride=2), (3, 4, 4), 2 * 3 * 5 * 4 * 4 * 4),  # per input position
        (nn.Linear(4, 6), (10, 4), 2 * 4 * 6 * 10),  # applied to each of 10 positions
    ],
)
def test_a_layer_by_hand(layer: nn.Module, shape: tuple[int, ...], expected: int) -> None:
    assert flops(layer, *shape) == {"weight": expected}


def test_a_layer_that_is_used_twice_counts_twice() -> None:
    assert flops(Twice(), 4) == {"layer.weight": 2 * (2 * 4 * 4)}


def test_counting_leaves_the_network_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    flops(model, 4)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not model[0]._forward_hooks


def test_training_costs_three_times_what_a_mask_keeps() -> None:
    per_example = {"a": 100.0, "b": 10.0}
    assert training_flops(per_example, None, 7) == 3 * 7 * 110
    masks = {"a": torch.tensor([True, False, False, False]), "b": torch.tensor([[True], [True]])}
    assert training_flops(per_example, masks, 7) == 3 * 7 * (25 + 10)
    assert training_flops(per_example, masks, 0) == 0
