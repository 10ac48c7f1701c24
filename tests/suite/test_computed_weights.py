"""A layer whose weight is no parameter is refused by name, with a repair that works; it is never left out."""

import re
import warnings
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from suite.errors import UserError
from suite.network import prunable_weights
from suite.networks.sources import MemoryNetwork


class Halved(nn.Module):
    """A parametrisation of a user's own."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight / 2


def _by_the_older(function: Callable[..., nn.Module]) -> Callable[[nn.Module], nn.Module]:
    """Call what torch deprecates, and people still use."""

    def call(layer: nn.Module) -> nn.Module:
        with warnings.catch_warnings(action="ignore"):
            return function(layer)

    return call


def _without_parameter(layer: nn.Module) -> nn.Module:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    del layer.weight
    layer.register_buffer("weight", weight.detach())
    return layer


def _as_attribute(layer: nn.Module) -> nn.Module:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    del layer.weight
    layer.weight = weight.detach().clone()
    return layer


CHANGED = [
    (parametrizations.weight_norm, "is parametrised (weight_norm); its weight is computed from others."),
    (parametrizations.spectral_norm, "is parametrised (spectral_norm); its weight is computed from others."),
    (parametrizations.orthogonal, "is parametrised (orthogonal); its weight is computed from others."),
    (
        lambda layer: parametrize.register_parametrization(layer, "weight", Halved()),
        "is parametrised (Halved); its weight is computed from others.",
    ),
    (_by_the_older(nn.utils.weight_norm), "is parametrised (weight_norm); its weight is computed from others."),
    (_by_the_older(nn.utils.spectral_norm), "is parametrised (spectral_norm); its weight is computed from others."),
    (
        lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
        "is parametrised (prune); its weight is computed from others.",
    ),
    (_without_parameter, "has a weight that is no parameter of the network."),
    (_as_attribute, "has a weight that is no parameter of the network."),
]
NAMES = ["weight_norm", "spectral_norm", "orthogonal", "own", "old weight_norm", "old spectral_norm", "prune"]
changed = pytest.mark.parametrize(("change", "words"), CHANGED, ids=[*NAMES, "buffer", "attribute"])


@pytest.fixture(autouse=True)
def _own_random_numbers() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        yield


def _refusal(model: nn.Module) -> str:
    with pytest.raises(UserError) as caught:
        prunable_weights(model)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@changed
@pytest.mark.parametrize("kind", [nn.Linear, lambda *sizes: nn.Conv2d(*sizes, 3)], ids=["linear", "convolution"])
def test_a_layer_is_refused_until_its_repair(
    kind: Callable[[int, int], nn.Module], change: Callable[[nn.Module], nn.Module], words: str
) -> None:
    module = change(kind(6, 5))
    model = nn.Sequential(nn.Flatten(), module, nn.Tanh(), nn.Linear(5, 3))
    line = _refusal(model)
    assert line.startswith(f"Module '1' ({type(module).__name__}) {words}")
    repair = re.search(r" first: (.*)\.$", line)
    assert repair is not None
    exec(repair.group(1), {"torch": torch, "module": module})
    assert list(prunable_weights(model)) == ["1.weight", "3.weight"]


@changed
def test_a_network_in_memory_is_refused_before_it_is_copied(
    change: Callable[[nn.Module], nn.Module], words: str
) -> None:
    model = nn.Sequential(change(nn.Linear(6, 5)), nn.Tanh(), nn.Linear(5, 3)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(UserError, match=re.escape(words)):
        MemoryNetwork.of(model, torch.zeros(4, 6), torch.arange(4) % 3)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_projection_of_attention_is_no_exception() -> None:
    attention = nn.MultiheadAttention(4, 2)
    parametrize.register_parametrization(attention, "in_proj_weight", Halved())
    assert "'attention' (ParametrizedMultiheadAttention) is parametrised (Halved); its in_proj_weight" in _refusal(
        nn.ModuleDict({"attention": attention})
    )
    apart = nn.MultiheadAttention(4, 2, kdim=3, vdim=5)  # has no in_proj_weight, and needs none
    projections = ["q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight"]
    assert list(prunable_weights(apart)) == projections


@pytest.mark.parametrize(
    "lazy", [lambda: nn.LazyLinear(3), lambda: nn.Sequential(nn.Linear(6, 3), nn.LazyBatchNorm1d())]
)
def test_a_network_without_shapes_is_sent_to_its_first_batch(lazy: Callable[[], nn.Module]) -> None:
    model = nn.Sequential(lazy())
    line = _refusal(model)
    assert re.match(r"Module '[0-9.]+' \(Lazy\w+\) is lazy: its tensors have no shape yet\. Run one batch", line)
    with pytest.raises(UserError, match="is lazy"):
        MemoryNetwork.of(model, torch.zeros(4, 6), torch.arange(4) % 3)
    model(torch.zeros(4, 6))
    assert len(prunable_weights(model)) == 1


def test_what_cannot_be_copied_is_told_in_one_line() -> None:
    model = nn.Linear(6, 3)
    model.seen = model(torch.zeros(1, 6))  # as a forward that keeps its activations does
    with pytest.raises(
        UserError, match=r"^Linear cannot be copied: Only Tensors created [^\n]*detach the tensors that"
    ):
        MemoryNetwork.of(model, torch.zeros(4, 6), torch.arange(4) % 3)
