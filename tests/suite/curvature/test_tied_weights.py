"""A weight that a network uses twice is one parameter: its Hessian against one that autograd finds without modules."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from suite.curvature.dense import dense_hessian
from suite.network import prunable_weights
from suite.networks.sources import MemoryNetwork


@pytest.fixture(autouse=True)
def _own_random_numbers() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


class TiedToEmbedding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.emb, self.mid = nn.Embedding(7, 4), nn.Linear(4, 4)
        self.out = nn.Linear(4, 7, bias=False)
        self.out.weight = self.emb.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(torch.tanh(self.mid(self.emb(tokens).mean(dim=1))))


class TiedLayers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.out = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 7)
        self.second.weight = self.first.weight

    def forward(self, inputs: Tensor) -> Tensor:
        return self.out(torch.tanh(self.second(torch.tanh(self.first(inputs)))))


def _tokens() -> Tensor:
    return torch.randint(0, 7, (40, 5), generator=torch.Generator().manual_seed(1))


def _features() -> Tensor:
    return torch.randn((40, 4), generator=torch.Generator().manual_seed(1))


def _logits_of_embedding(flat: Tensor, model: nn.Module, tokens: Tensor) -> Tensor:
    mid, table = flat[:16].reshape(4, 4), flat[16:].reshape(7, 4)
    hidden = table[tokens].mean(dim=1) @ mid.T + model.get_parameter("mid.bias").detach().double()
    return torch.tanh(hidden) @ table.T


def _logits_of_layers(flat: Tensor, model: nn.Module, inputs: Tensor) -> Tensor:
    shared, out = flat[:16].reshape(4, 4), flat[16:].reshape(7, 4)
    names = ("first.bias", "second.bias", "out.bias")
    first, second, last = (model.get_parameter(name).detach().double() for name in names)
    return torch.tanh(torch.tanh(inputs.double() @ shared.T + first) @ shared.T + second) @ out.T + last


TIED = [
    (TiedToEmbedding, ["mid.weight", "emb.weight"], _tokens, _logits_of_embedding),
    (TiedLayers, ["first.weight", "out.weight"], _features, _logits_of_layers),
]


@pytest.mark.parametrize(("network", "names", "data", "logits"), TIED, ids=["embedding", "layers"])
def test_the_hessian_is_that_of_one_shared_weight(
    network: type[nn.Module],
    names: list[str],
    data: Callable[[], Tensor],
    logits: Callable[[Tensor, nn.Module, Tensor], Tensor],
) -> None:
    model, inputs = network(), data()
    targets = torch.randint(0, 7, (40,), generator=torch.Generator().manual_seed(2))
    weights = prunable_weights(model)
    assert list(weights) == names
    flat = torch.cat([weight.detach().double().flatten() for weight in weights.values()])
    assert len(flat) == 16 + 28

    def loss(values: Tensor) -> Tensor:
        return functional.cross_entropy(logits(values, model, inputs), targets)

    source = MemoryNetwork.of(model, inputs, targets, "float64")
    assert np.array_equal(source.load().weights(), flat.numpy())
    expected = torch.autograd.functional.hessian(loss, flat)
    assert torch.allclose(dense_hessian(source.build()), expected, rtol=1e-9, atol=1e-12)
