"""The contract of all architectures: a new file in suite/models is tested here the day it is added."""

import pytest
import torch
from torch import nn

from suite.curvature.operators import HessianOperator
from suite.extensions import available, load
from suite.initialisation import initialise
from suite.network import build_model, model_spec, num_prunable, prunable_weights
from suite.strict import Settings

MODELS = available("suite.models")
LARGE = {"alexnet", "resnet18", "resnet50", "vgg16", "vgg19"}  # seconds per product in float64
SHAPE, NUM_CLASSES = (3, 32, 32), 7


def built(name: str, seed: int = 0) -> nn.Module:
    model = build_model(model_spec(name, {}, SHAPE, NUM_CLASSES), seed)
    initialise(model, "kaiming_normal", seed)
    return model


@pytest.mark.parametrize("name", MODELS)
def test_a_model_says_what_it_is(name: str) -> None:
    module = load("suite.models", name, "model")
    assert module.__doc__
    assert isinstance(module.VERSION, int)
    assert issubclass(module.Options, Settings)


@pytest.mark.parametrize("name", MODELS)
def test_it_maps_examples_to_logits(name: str) -> None:
    inputs = torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(0))
    logits = built(name).eval()(inputs)
    assert logits.shape == (5, NUM_CLASSES)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("name", MODELS)
def test_examples_do_not_see_each_other_in_evaluation(name: str) -> None:
    model = built(name).eval().double()
    inputs = torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.allclose(model(inputs)[2:3], model(inputs[2:3]), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_every_prunable_weight_is_reached_by_the_loss(name: str) -> None:
    model = built(name).train()
    inputs = torch.randn(8, *SHAPE, generator=torch.Generator().manual_seed(0))
    weights, targets = prunable_weights(model), torch.arange(8) % NUM_CLASSES
    loss = nn.functional.cross_entropy(model(inputs), targets)
    gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
    reached = [gradient is not None and bool(gradient.any()) for gradient in gradients]
    assert dict(zip(weights, reached, strict=True)) == dict.fromkeys(weights, True)


@pytest.mark.parametrize("name", MODELS)
def test_the_same_seed_is_the_same_network(name: str) -> None:
    first, again, other = (built(name, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("name", MODELS)
def test_it_is_counted_without_being_allocated(name: str) -> None:
    total = sum(weight.numel() for weight in prunable_weights(built(name)).values())
    assert num_prunable(model_spec(name, {}, SHAPE, NUM_CLASSES)) == total


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name for name in MODELS]
)
def test_its_hessian_has_products_and_they_are_torch_s_own(name: str) -> None:
    model = built(name).eval().double()
    inputs = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    targets = torch.arange(1)
    weights = prunable_weights(model)
    draw = torch.Generator().manual_seed(1)
    vector = torch.cat(
        [torch.randn(weight.numel(), generator=draw, dtype=torch.float64) for weight in weights.values()]
    )
    product = HessianOperator(model, tuple(weights), [(inputs, targets)], torch.float64).matvec(vector)
    loss = nn.functional.cross_entropy(model(inputs), targets)
    gradient = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(weights.values()), create_graph=True)])
    expected = torch.cat([p.reshape(-1) for p in torch.autograd.grad(gradient @ vector, list(weights.values()))])
    assert torch.linalg.vector_norm(product - expected) < 1e-9 * torch.linalg.vector_norm(expected)
