import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from suite.curvature.determinism import refuse_nondeterministic
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
    refuse_nondeterministic(model, lambda: model(inputs))


def test_usual_layers_pass_and_end_in_eval_mode():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(inplace=True), nn.Dropout(), nn.Flatten())
    _check(model)
    assert not any(module.training for module in model.modules())


def test_a_random_layer_is_named():
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.FractionalMaxPool2d(2, output_size=3), nn.Flatten(), nn.Linear(18, 3))
    with pytest.raises(ValueError, match=r"Module '1' \(FractionalMaxPool2d\) is random in eval mode"):
        _check(model)


class _Noise(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + torch.rand(inputs.shape)


def test_a_random_layer_of_ones_own_is_named():
    with pytest.raises(ValueError, match=r"Module '2' \(_Noise\) is random in eval mode"):
        _check(nn.Sequential(nn.Flatten(), nn.Linear(36, 4), _Noise(), nn.Linear(4, 2)))


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
