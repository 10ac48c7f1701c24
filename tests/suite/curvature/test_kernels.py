"""Second derivatives by our kernels against torch's own, in float64, on every kind of layer they answer for."""

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from suite.curvature.arithmetic import Execution
from suite.curvature.attention import attention
from suite.curvature.operators import GaussNewtonOperator, HessianOperator
from tests.suite.conftest import Network

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")  # one of the networks


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


class _ConvNextBlock(nn.Module):
    """Depthwise convolution, LayerNorm over the channels, two linear layers on (n, h, w, c), GELU, layer scale."""

    def __init__(self) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.norm = nn.LayerNorm(6)
        self.expand = nn.Linear(6, 8)
        self.reduce = nn.Linear(8, 6)
        self.scale = nn.Parameter(torch.full((6,), 0.5))
        self.head = nn.Linear(6, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        features = self.norm(self.depthwise(inputs).permute(0, 2, 3, 1))
        mixed = self.scale * self.reduce(nn.functional.gelu(self.expand(features)))
        return self.head((inputs + mixed.permute(0, 3, 1, 2)).mean(dim=(2, 3)))


class _TransformerBlock(nn.Module):
    """Torch's own block, and attention by hand, causal and not."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.TransformerEncoderLayer(6, 2, 8, activation="gelu", batch_first=True)
        self.project = nn.Linear(6, 9, bias=False)
        self.head = nn.Linear(3, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        tokens = self.block(inputs.flatten(2).transpose(1, 2)[:, :8])
        query, key, value = self.project(tokens).chunk(3, dim=-1)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        weights = (query @ key.transpose(1, 2)).softmax(dim=-1)
        return self.head((mixed + torch.einsum("nqk,nkc->nqc", weights, value)).mean(dim=1))


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
    "one-sided padding": lambda: nn.Sequential(
        nn.Conv2d(6, 4, (2, 3), padding="same"), nn.Tanh(), nn.Flatten(), nn.LazyLinear(3)
    ),
    "reflected": lambda: _convolutional(padding=1, padding_mode="reflect"),
    "one dimension": lambda: nn.Sequential(
        nn.Flatten(2), nn.Conv1d(6, 4, 3, padding=1), nn.BatchNorm1d(4), nn.Tanh(), nn.Flatten(), nn.LazyLinear(3)
    ),
    "attention": _Attention,
    "transformer block": _TransformerBlock,
    "ConvNeXt block": _ConvNextBlock,
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


@pytest.mark.parametrize("name", ["transformer block", "ConvNeXt block", "attention"])
def test_products_of_a_block_equal_its_dense_hessian(name):
    model, names, batches = _made(name)
    network = Network(model, tuple(names), batches)
    operator = network.operator()
    vectors = torch.randn((operator.dim, 2), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no second derivative
        expected = network.hessian() @ vectors
    torch.testing.assert_close(operator.matmat(vectors), expected, rtol=1e-9, atol=1e-12)


def test_a_bias_of_every_kind_of_layer_has_its_rows():
    model, names, batches = _made("ConvNeXt block")
    names = [*names, "depthwise.bias", "expand.bias", "norm.weight", "scale"]
    network = Network(model, tuple(names), batches)
    vector = torch.ones(len(network.point()), dtype=torch.float64)
    torch.testing.assert_close(network.operator().matvec(vector), network.hessian() @ vector, rtol=1e-9, atol=1e-12)


_PRODUCTS = ("aten::convolution", "aten::mm", "aten::addmm", "aten::bmm", "aten::convolution_backward")


class _Products(TorchDispatchMode):
    """Notes the types of the operands of all matrix products and convolutions, of every pass."""

    def __init__(self) -> None:
        super().__init__()
        self.types: dict[str, set[torch.dtype]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name
        if name in _PRODUCTS:
            operands = [each for each in args if isinstance(each, torch.Tensor)]
            self.types.setdefault(name, set()).update(each.dtype for each in operands)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["transformer block", "ConvNeXt block", "attention", "one-sided padding"])
def test_all_products_of_all_passes_round_their_operands_to_bfloat16(name):
    model, names, batches = _made(name)
    operator = HessianOperator(model, names, batches, execution=Execution(operands="bfloat16"))
    vector = torch.ones(operator.dim)
    with _Products() as seen:
        coarse = operator.matvec(vector)
    assert set.union(*seen.types.values()) == {torch.bfloat16}
    assert coarse.dtype == torch.float32
    exact = HessianOperator(model, names, batches, torch.float64).matvec(vector.double())
    assert 1e-5 < float((coarse - exact).norm() / exact.norm()) < 0.2


@pytest.mark.parametrize("options", [{"is_causal": True}, {"scale": 0.3}, {"mask": "bool"}, {"mask": "float"}, {}])
def test_attention_in_parts_is_attention(options):
    draw = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn((2, 3, 5, 4), generator=draw, dtype=torch.float64) for _ in range(3))
    mask = torch.randn((5, 5), generator=draw, dtype=torch.float64)
    options = dict(options)
    kind = options.pop("mask", None)
    if kind is not None:
        options["attn_mask"] = mask if kind == "float" else (mask > 0).logical_or(torch.eye(5, dtype=torch.bool))
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, **options)
    torch.testing.assert_close(attention(query, key, value, **options), expected)


def test_attention_with_dropout_is_left_to_torch():
    assert attention(*torch.zeros((3, 1, 2, 2)), dropout_p=0.5) is None
