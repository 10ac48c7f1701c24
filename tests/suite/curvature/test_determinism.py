import random

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from suite.curvature.determinism import refuse_changing_batches, refuse_nondeterministic
from suite.curvature.operators import HessianOperator


@pytest.fixture(autouse=True)
def _restored_global_generator():
    """Restore what the layers of these tests draw from the global generator: initial weights and noise."""
    with torch.random.fork_rng(devices=[]):
        yield


INPUTS = torch.linspace(-1, 1, 72).reshape(2, 1, 6, 6)


class _NoisyForward(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(36, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.inner(functional.dropout(inputs, 0.5))  # the usual slip: training=True is the default


class _AlwaysTraining(nn.Dropout):
    def train(self, mode: bool = True) -> "_AlwaysTraining":  # noqa: ARG002
        return super().train(True)


def _check(model: nn.Module, inputs: Tensor = INPUTS) -> None:
    refuse_nondeterministic(model, model, inputs)


def test_usual_layers_pass_and_end_in_eval_mode():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(inplace=True), nn.Dropout(), nn.Flatten())
    _check(model)
    assert not any(module.training for module in model.modules())


def test_a_random_layer_is_named():
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.FractionalMaxPool2d(2, output_size=3), nn.Flatten(), nn.Linear(18, 3))
    with pytest.raises(ValueError, match=r"Module '1' \(FractionalMaxPool2d\) is random in eval mode"):
        _check(model)


class _Noise(nn.Module):
    def __init__(self, size: float = 1.0) -> None:
        super().__init__()
        self.size = size

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + self.size * torch.rand(inputs.shape)


class _StubbornDropout(nn.Module):
    """Ignores eval mode, and drops so seldom that two passes over a few examples nearly always agree."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs * torch.bernoulli(torch.full_like(inputs, 1 - 1e-7))


class _StochasticDepth(nn.Module):
    def __init__(self, draw) -> None:
        super().__init__()
        self.draw = draw

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs if self.draw() < 1e-9 else torch.tanh(inputs)


class _OwnGenerator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator()

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + torch.rand(inputs.shape, generator=self.generator)


@pytest.mark.parametrize(
    "layer",
    [
        _Noise(),
        _Noise(1e-9),
        _StubbornDropout(),
        _StochasticDepth(random.random),
        _StochasticDepth(np.random.random),
        _OwnGenerator(),
    ],
    ids=["noise", "little noise", "seldom dropout", "python's generator", "numpy's generator", "own generator"],
)
def test_a_random_layer_of_ones_own_is_named(layer):
    name = type(layer).__name__
    with pytest.raises(ValueError, match=rf"Module '2' \({name}\) is random in eval mode"):
        _check(nn.Sequential(nn.Flatten(), nn.Linear(36, 4), layer, nn.Linear(4, 2)))


class _BatchStatistics(nn.Module):
    """Batch normalisation in training mode, whatever mode the network is in."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def forward(self, inputs: Tensor) -> Tensor:
        return functional.batch_norm(inputs, None, None, self.norm.weight, self.norm.bias, training=True)


class _SwitchesBack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.norm.train()(inputs)


@pytest.mark.parametrize(("layer", "name"), [(_BatchStatistics, "2"), (_SwitchesBack, r"2\.norm")])
def test_normalisation_by_the_batch_is_named_where_no_module_says_so(layer, name):
    with pytest.raises(ValueError, match=rf"Module '{name}' \(.*\) gives an example another result beside other"):
        _check(nn.Sequential(nn.Flatten(), nn.Linear(36, 4), layer(), nn.Tanh(), nn.Linear(4, 2)))


def test_the_operator_refuses_batch_statistics_too():
    model = nn.Sequential(nn.Linear(36, 4), _BatchStatistics(), nn.Linear(4, 3))
    with pytest.raises(ValueError, match=r"Module '1' \(_BatchStatistics\)"):
        HessianOperator(model, ["0.weight"], [(INPUTS.flatten(1), torch.zeros(2, dtype=torch.long))])


class _Shifting(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return torch.tanh(inputs.sub_(0.1))


class _ShiftingUnseen(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        inputs.data -= 0.1  # autograd's counter of versions knows nothing of it
        return torch.tanh(inputs)


@pytest.mark.parametrize(
    ("layer", "named"),
    [
        (_Shifting(), r"'1' \(_Shifting\)"),
        (nn.ReLU(inplace=True), r"'1' \(ReLU\)"),
        (nn.Sequential(_Shifting()), r"'1\.0' \(_Shifting\)"),
        (_ShiftingUnseen(), r"'\(the network itself\)' \(Sequential\)"),
    ],
    ids=["function", "inplace=True", "within another", "data"],
)
@pytest.mark.parametrize("num_examples", [1, 2])
def test_a_network_that_changes_its_inputs_is_named_and_changes_none(layer, named, num_examples):
    inputs = INPUTS[:num_examples].clone()
    with pytest.raises(ValueError, match=rf"^Module {named} changes its inputs in place.* Expected: x = x - 0\.1"):
        _check(nn.Sequential(nn.Flatten(), layer, nn.Linear(36, 3)), inputs)
    assert torch.equal(inputs, INPUTS[:num_examples])


def test_inputs_that_need_no_change_yet_are_no_excuse():
    with pytest.raises(ValueError, match=r"Module '0' \(ReLU\) changes its inputs in place"):
        _check(nn.Sequential(nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(36, 3)), torch.ones(2, 1, 6, 6))


def test_what_works_in_place_on_its_own_tensors_or_in_training_alone_passes():
    _check(nn.Sequential(nn.Dropout(inplace=True), nn.Flatten(), nn.Linear(36, 3), nn.ReLU(inplace=True)))
    _check(nn.Sequential(nn.Embedding(5, 3), nn.ReLU(inplace=True)), torch.ones((2, 4), dtype=torch.long))
    _check(nn.Sequential(nn.Flatten(), nn.Linear(36, 3)), torch.full((2, 1, 6, 6), float("nan")))


def test_the_operator_leaves_inputs_alone_that_its_network_would_change():
    inputs = INPUTS.flatten(1).clone()
    with pytest.raises(ValueError, match="changes its inputs in place"):
        HessianOperator(
            nn.Sequential(_Shifting(), nn.Linear(36, 3)), ["1.weight"], [(inputs, torch.zeros(2, dtype=torch.long))]
        )
    assert torch.equal(inputs, INPUTS.flatten(1))


class _Augmenting(list):
    def __iter__(self):
        return ((inputs + torch.rand(()), targets) for inputs, targets in super().__iter__())


def test_data_that_change_between_passes_are_refused():
    batches = [(INPUTS.flatten(1), torch.zeros(2, dtype=torch.long))]
    refuse_changing_batches(batches)
    with pytest.raises(ValueError, match=r"\(_Augmenting\) differ when they are read twice.*no augmentation"):
        HessianOperator(nn.Linear(36, 3), ["weight"], _Augmenting(batches))
    with pytest.raises(ValueError, match=r"\(generator\) differ"):
        refuse_changing_batches(pair for pair in batches)


def test_missing_values_are_equal_to_themselves():
    refuse_changing_batches([(torch.full((2, 3), float("nan")), torch.zeros(2, dtype=torch.long))])


def test_noise_inside_a_forward_is_laid_at_its_owner_and_not_at_a_later_layer():
    model = nn.Sequential(nn.Flatten(2), nn.Sequential(_NoisyForward()), nn.Flatten())
    with pytest.raises(ValueError, match=r"Module '1\.0' \(_NoisyForward\)"):
        _check(model, torch.ones(2, 1, 6, 6))


def test_a_module_that_stays_in_training_mode_is_named():
    with pytest.raises(ValueError, match=r"Module '1' \(_AlwaysTraining\) stays in training mode"):
        _check(nn.Sequential(nn.Flatten(), _AlwaysTraining()))


def test_batch_statistics_are_refused():
    with pytest.raises(ValueError, match=r"Module '0' \(BatchNorm2d\) has no running statistics"):
        _check(nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False)))


def test_a_diverged_network_is_not_called_random():
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 2))
    model[1].weight.data.fill_(float("nan"))
    _check(model)


def test_the_operator_refuses_too():
    model = nn.Sequential(_NoisyForward())
    with pytest.raises(ValueError, match="random in eval mode"):
        HessianOperator(model, ["0.inner.weight"], [(torch.ones(4, 36), torch.zeros(4, dtype=torch.long))])
