"""By the network alone: counted by hand for layers whose tensors are known, and held to what torch allocates."""

import gc

import pytest
import torch
from torch import Tensor, nn

from suite import evaluation_batch as module
from suite.curvature.allocation import live_bytes
from suite.evaluation_batch import LARGEST_BATCH, MOST_NUMBERS, evaluation_batch
from suite.problem import evaluate
from suite.splits import Split

CPU = torch.device("cpu")


@torch.random.fork_rng(devices=[])
def network(width: int = 8) -> nn.Module:
    torch.manual_seed(1)
    layers = [nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(width * 36, 3)]
    return nn.Sequential(*layers).eval()


def examples(count: int) -> Split:
    draw = torch.Generator().manual_seed(5)
    return Split(torch.randn(count, 1, 6, 6, generator=draw), torch.randint(0, 3, (count,), generator=draw))


@pytest.mark.parametrize(("most", "batch"), [(0, 1), (287, 1), (288, 1), (4 * 288, 4), (8 * 288 - 1, 4), (2**40, 2048)])
def test_the_widest_tensor_is_counted(monkeypatch: pytest.MonkeyPatch, most: int, batch: int) -> None:
    monkeypatch.setattr(module, "MOST_NUMBERS", most)
    assert evaluation_batch(network(), examples(1).inputs) == batch


def test_weights_do_not_count_however_large(monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.random.fork_rng(devices=[]):
        model = nn.Sequential(nn.Flatten(), nn.Linear(36, 50), nn.Linear(50, 40), nn.Linear(40, 3))  # 1,800 weights
    monkeypatch.setattr(module, "MOST_NUMBERS", 50 * 16)
    with torch.autocast("cpu", torch.bfloat16):  # which casts them on the way
        assert evaluation_batch(model, examples(1).inputs) == 16


def test_what_a_network_computes_without_modules_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    class Outer(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            pixels = inputs.flatten(1)
            return (pixels.unsqueeze(1) * pixels.unsqueeze(2)).sum(1)[:, :3]

    monkeypatch.setattr(module, "MOST_NUMBERS", 36 * 36 * 32)
    assert evaluation_batch(Outer(), examples(1).inputs) == 32


def test_small_networks_take_the_largest_batch_and_are_looked_at_once() -> None:
    module._known.clear()
    model, calls = network(), []
    model.register_forward_hook(lambda *_: calls.append(1))
    assert evaluation_batch(model, examples(3).inputs) == LARGEST_BATCH <= MOST_NUMBERS
    assert evaluation_batch(model, examples(5).inputs) == LARGEST_BATCH
    assert len(calls) == 2
    assert len(module._known) == 1
    del model
    gc.collect()
    assert not module._known


def test_nothing_is_drawn_and_nothing_stays() -> None:
    model, before = network().train(), torch.get_rng_state()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    evaluation_batch(model, examples(1).inputs)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("way", ["micro-batch", "wide"])
def test_an_evaluation_holds_no_more_at_once(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    model, split = network(64), examples(512)
    whole = evaluate(model, split)
    free = max(live_bytes(lambda: evaluate(model, split), CPU))
    if way == "wide":
        monkeypatch.setattr(module, "MOST_NUMBERS", 32 * 64 * 36)
        module._known.clear()
    bound = max(live_bytes(lambda: evaluate(model, split, batch_size=32 if way == "micro-batch" else None), CPU))
    assert bound < free / 10
    found = evaluate(model, split, batch_size=32)
    assert found.loss == pytest.approx(whole.loss, rel=1e-6)
    assert found.accuracy == whole.accuracy
