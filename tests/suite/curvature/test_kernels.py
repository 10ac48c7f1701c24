"""Second derivatives by our kernels against torch's own, in float64, on every kind of layer they answer for."""

import pytest
import torch
from torch import nn

from suite.curvature.arithmetic import Execution
from suite.curvature.operators import GaussNewtonOperator, HessianOperator


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(6)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.head = nn.Linear(6, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        tokens = self.norm(inputs.flatten(2).transpose(1, 2))
        mixed, _ = self.attention(tokens, tokens, tokens, need_weights=False)
        return self.head(nn.functional.gelu(tokens + mixed).mean(dim=1))


class _Shared(nn.Module):
    """One filter used twice, and a weight that is computed from another."""

    def __init__(self) -> None:
        super().__init__()
        self.filter = nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.utils.parametrizations.weight_norm(nn.Linear(6, 3))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.filter(torch.tanh(self.filter(inputs)))).mean(dim=(2, 3)))


def _convolutional(**options) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(6, 4, 3, **options), nn.BatchNorm2d(4, affine=False), nn.Tanh(), nn.Flatten(), nn.LazyLinear(3)
    )


_MODELS = {
    "stride": lambda: _convolutional(stride=2, padding=1),
    "dilation": lambda: _convolutional(dilation=2, bias=False),
    "groups": lambda: _convolutional(groups=2),
    "named padding": lambda: _convolutional(padding="same"),
    "reflected": lambda: _convolutional(padding=1, padding_mode="reflect"),
    "one dimension": lambda: nn.Sequential(
        nn.Flatten(2), nn.Conv1d(6, 4, 3, padding=1), nn.BatchNorm1d(4), nn.Tanh(), nn.Flatten(), nn.LazyLinear(3)
    ),
    "attention": _Attention,
    "shared": _Shared,
    "tokens": lambda: nn.Sequential(nn.Flatten(2), nn.Linear(36, 5), nn.Tanh(), nn.Flatten(), nn.LazyLinear(3)),
}


@torch.random.fork_rng(devices=[])  # layers draw initial weights from the global generator
def _made(name: str) -> tuple[nn.Module, list[str], list[tuple[torch.Tensor, torch.Tensor]]]:
    torch.manual_seed(0)
    inputs, targets = torch.randn(7, 6, 6, 6), torch.randint(0, 3, (7,))
    model = _MODELS[name]().eval()
    model(inputs)
    names = [each for each, value in model.named_parameters() if value.ndim > 1]
    return model, names, [(inputs[:4], targets[:4]), (inputs[4:], targets[4:])]


@pytest.mark.parametrize("kind", [HessianOperator, GaussNewtonOperator])
@pytest.mark.parametrize("name", list(_MODELS))
def test_products_equal_those_of_torch(name, kind):
    model, names, batches = _made(name)
    by_torch = kind(model, names, batches, torch.float64, execution=Execution(fast_kernels=False, channels_last=False))
    vectors = torch.randn((by_torch.dim, 2), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = by_torch.matmat(vectors)
    assert expected.abs().max() > 0
    for channels_last in (True, False):
        execution = Execution(channels_last=channels_last)
        found = kind(model, names, batches, torch.float64, execution=execution).matmat(vectors)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("kind", [HessianOperator, GaussNewtonOperator])
def test_kept_graphs_give_the_same_bits_again_and_again(kind):
    model, names, batches = _made("stride")
    plain = kind(model, names, batches, torch.float64)
    kept = kind(model, names, batches, torch.float64, execution=Execution(keep_graphs=True))
    vectors = torch.randn((plain.dim, 2), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = plain.matmat(vectors)
    for _ in range(3):
        assert torch.equal(kept.matmat(vectors), expected)


def test_a_bias_among_the_named_parameters_has_its_rows():
    model, names, batches = _made("stride")
    names = [*names, "0.bias"]
    vector = torch.randn(1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ours = HessianOperator(model, names, batches, torch.float64)
    plain = HessianOperator(model, names, batches, torch.float64, execution=Execution(fast_kernels=False))
    vector = torch.ones(ours.dim, dtype=torch.float64)
    torch.testing.assert_close(ours.matvec(vector), plain.matvec(vector), rtol=1e-9, atol=1e-13)


def test_columns_of_a_product_equal_products_of_columns():
    model, names, batches = _made("stride")
    operator = HessianOperator(model, names, batches)
    vectors = torch.randn((operator.dim, 3), generator=torch.Generator().manual_seed(0))
    together = operator.matmat(vectors)
    for column in range(3):
        assert torch.equal(together[:, column], operator.matvec(vectors[:, column].contiguous()))
