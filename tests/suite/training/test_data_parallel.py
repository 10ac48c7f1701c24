"""The processes of a group as threads of this one: each has its own process group over a private file.

What layers draw cannot be tested so, for threads share torch's generators; tests/suite/test_ranks.py has processes.
"""

import gc
import threading
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, replace
from datetime import timedelta
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn

from suite.pruning.contract import Search
from suite.pruning.masks import Masks, num_kept
from suite.pruning.methods import rare_gems
from suite.pruning.methods.rare_gems import ScoredNetwork
from suite.seeds import generator
from suite.splits import Normalisation, Split
from suite.study import Recipe
from suite.training import checkpoint
from suite.training.checkpoint import Trainings
from suite.training.data_parallel import Ranks, data_parallel
from suite.training.loop import Hooks, train
from suite.training.schedules import learning_rate

Make = Callable[..., Recipe]
Work = Callable[[Ranks], Any]
CPU = torch.device("cpu")


class Power(Exception):
    """Goes out."""


def group_of(store: Any, rank: int, size: int) -> distributed.ProcessGroup:
    """Return what init_process_group would, without making it the one group of this process."""
    group = distributed.ProcessGroup(store, rank, size)
    gloo = distributed.ProcessGroup.BackendType.GLOO
    group._register_backend(CPU, gloo, distributed.ProcessGroupGloo(store, rank, size, timedelta(seconds=60)))
    group._set_default_backend(gloo)
    return group


@pytest.fixture
def together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Work], list[Any]]:
    """Return a function that has each rank do the same; it returns what came of it, exceptions included, by rank."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    monkeypatch.setenv("TORCH_CPP_LOG_LEVEL", "ERROR")
    monkeypatch.setattr(Ranks, "seed_layers", lambda *_: None)
    numbers = count()

    def run(size: int, work: Work) -> list[Any]:
        found: list[Any] = [None] * size
        path = tmp_path / f"store-{next(numbers)}"

        def one(rank: int) -> None:
            try:
                store = distributed.FileStore(str(path), size)
                found[rank] = work(Ranks(rank, size, group_of(store, rank, size), CPU))
            except Exception as error:
                found[rank] = error

        threads = [threading.Thread(target=one, args=(rank,), daemon=True) for rank in range(size)]
        # A group that is collected waits for its peers, in whatever thread, which may hold a lock that they need.
        gc.collect()
        gc.disable()
        try:
            with torch.random.fork_rng(devices=[]):
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join(timeout=120)
        finally:
            gc.enable()
        return found

    return run


def splits(size: int = 50, dtype: torch.dtype = torch.float64) -> dict[str, Split]:
    draw = torch.Generator().manual_seed(5)

    def one(size: int) -> Split:
        inputs = torch.randn(size, 4, generator=draw, dtype=dtype)
        return Split(inputs, torch.randint(0, 3, (size,), generator=draw))

    return {"train": one(size), "validation": one(20), "test": one(20)}


class Hidden(nn.Module):
    """Has running statistics, a buffer that its pass in training reads, and a weight that no loss reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)
        self.unused = nn.Linear(2, 2)
        self.register_buffer("level", torch.zeros(()), persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        if self.training:
            self.level.copy_(0.9 * self.level + 0.1 * inputs.detach().mean())
        logits: Tensor = self.last(torch.relu(self.norm(self.first(inputs))))
        return logits * (1 + self.level)


@cache  # built before there are threads, which would draw from the same generator
@torch.random.fork_rng(devices=[])
def networks() -> dict[str, Any]:
    torch.manual_seed(3)
    layers = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    images = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(180, 3))
    return {"plain": layers, "hidden": Hidden(), "convolutional": images}


@pytest.fixture(autouse=True)
def built() -> None:
    networks()


def plain() -> Any:
    return deepcopy(networks()["plain"])


def hidden() -> Any:
    return deepcopy(networks()["hidden"])


def convolutional() -> Any:
    return deepcopy(networks()["convolutional"])


def everything(model: nn.Module, history: Any) -> dict[str, Any]:
    values = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    bits = {name: value.detach().numpy().tobytes() for name, value in values.items()}
    return bits | {"history": repr(asdict(history))}


def masks() -> Masks:
    return {"0.weight": torch.rand((6, 4), generator=torch.Generator().manual_seed(1)) < 0.5}


def by_hand(model: nn.Module, data: Split, made: Recipe, kept: Masks | None) -> list[float]:
    """Train by the definition of SGD on whole batches, and return the mean loss of each epoch."""
    named = dict(model.named_parameters())
    velocity = {name: torch.zeros_like(weight) for name, weight in named.items()}
    per_epoch, losses = -(-len(data.targets) // made.batch_size), []
    for epoch in range(made.epochs):
        order = torch.randperm(len(data.targets), generator=generator(0, "order", epoch))
        total = 0.0
        for position, index in enumerate(order.split(made.batch_size)):
            loss = nn.functional.cross_entropy(model(data.inputs[index]), data.targets[index])
            gradients = torch.autograd.grad(loss, list(named.values()))
            total += loss.item() * len(index)
            rate = learning_rate(made, epoch * per_epoch + position, made.epochs * per_epoch)
            with torch.no_grad():
                for (name, weight), gradient in zip(named.items(), gradients, strict=True):
                    mask = kept[name] if kept and name in kept else torch.ones_like(weight)
                    pull = made.l1 * weight.sign() if name.endswith("weight") else 0.0
                    change = (gradient + pull) * mask + made.weight_decay * weight
                    velocity[name] = made.momentum * velocity[name] + change
                    weight.sub_(rate * velocity[name]).mul_(mask)
        losses.append(total / len(data.targets))
    return losses


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize(
    ("batch_size", "micro_batch_size"),
    [(20, None), (25, None), (7, None), (49, None), (49, 20), (50, 25), (50, 24)],  # 50 examples; 7 and 49 leave one
)
@pytest.mark.parametrize("pruned", [False, True])
def test_shards_train_as_whole_batches_do(
    together: Any, recipe: Make, size: int, batch_size: int, micro_batch_size: int | None, pruned: bool
) -> None:
    changes = {"momentum": 0.9, "weight_decay": 1e-3, "l1": 1e-3, "schedule": "cosine", "epochs": 3}
    made = recipe(batch_size=batch_size, micro_batch_size=micro_batch_size, data_parallel=size, **changes)
    kept = masks() if pruned else None
    expected = plain()
    losses = by_hand(expected, splits()["train"], made, kept)

    def work(ranks: Ranks) -> Any:
        model = plain()
        history = train(model, splits(), made, 0, masks=kept, ranks=ranks)
        return model, history

    results = together(size, work)
    for model, history in results:
        for weight, wanted in zip(model.parameters(), expected.parameters(), strict=True):
            assert torch.allclose(weight, wanted, rtol=1e-12, atol=1e-14)
        assert history.curves["train_loss"] == pytest.approx(losses, rel=1e-12)
        assert history.num_examples == 150
        assert everything(model, history) == everything(*results[0])
        if kept is not None:
            assert not model[0].weight[~kept["0.weight"]].any()


def batch_normalised(made: Recipe, size: int) -> nn.Module:
    """Train by hand: each shard normalised by itself, running statistics of the first shards."""
    model, data = hidden(), splits(dtype=torch.float32)["train"]
    trained = [weight for name, weight in model.named_parameters() if not name.startswith("unused")]
    model.train()
    for epoch in range(made.epochs):
        order = torch.randperm(len(data.targets), generator=generator(0, "order", epoch))
        for index in order.split(made.batch_size):
            before = {name: buffer.clone() for name, buffer in model.named_buffers()}
            shards = index.tensor_split(size) if len(index) >= 2 * size else (index,)
            total = torch.zeros(())
            for shard in reversed(shards):
                for name, buffer in model.named_buffers():
                    buffer.data = before[name].clone()
                loss = nn.functional.cross_entropy(model(data.inputs[shard]), data.targets[shard])
                total = total + len(shard) / len(index) * loss
            for weight, gradient in zip(trained, torch.autograd.grad(total, trained), strict=True):
                weight.data.sub_(made.learning_rate * gradient)
    return model


@pytest.mark.parametrize(("size", "batch_size"), [(2, 20), (3, 20), (2, 48), (3, 47)])  # the last ones have 2 and 3
def test_each_process_normalises_its_own_shard(together: Any, recipe: Make, size: int, batch_size: int) -> None:
    made = recipe(epochs=2, batch_size=batch_size, data_parallel=size)
    expected = batch_normalised(made, size).state_dict()

    def work(ranks: Ranks) -> dict[str, Tensor]:
        model = hidden()
        train(model, splits(dtype=torch.float32), made, 0, ranks=ranks)
        return model.state_dict()

    for found in together(size, work):
        for name, value in expected.items():
            assert torch.allclose(found[name].double(), value.double(), rtol=1e-4, atol=1e-6), name
        assert int(found["norm.num_batches_tracked"]) == 2 * -(-50 // batch_size)


CASES: dict[str, dict[str, Any]] = {
    "momentum": {"momentum": 0.9, "weight_decay": 1e-3, "l1": 1e-3, "schedule": "cosine"},
    "adam": {"optimiser": "adam", "batch_size": 8},
    "micro-batches": {"momentum": 0.9, "micro_batch_size": 5},
}


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("case", CASES)
def test_a_training_that_dies_goes_on_to_the_same_bits(
    together: Any, recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, case: str
) -> None:
    monkeypatch.setattr(checkpoint, "SHORTEST_S", 0.0)
    monkeypatch.setattr(checkpoint, "MOST_TIME", 1.0)
    made = recipe(**{"epochs": 2, "batch_size": 20, "data_parallel": size} | CASES[case])
    if made.micro_batch_size and size == 3:  # shards of 7, 6, 4 and 3: no micro-batch of one, which has no variance
        made = made.model_copy(update={"micro_batch_size": 4})

    def work(ranks: Ranks, folder: Path | None = None, dies_in: int = 0) -> dict[str, Any]:
        model, steps = hidden(), count(1)

        def die() -> None:
            if next(steps) == dies_in:
                raise Power

        stage = Trainings(folder if ranks.is_first else None, "tiny").stage("training")
        data = splits(dtype=torch.float32)
        return everything(model, train(model, data, made, 0, hooks=Hooks(after_step=die), stage=stage, ranks=ranks))

    whole = together(size, work)
    assert whole[1:] == whole[:-1]  # the same in every process
    assert together(size, work) == whole  # and in every run
    for dies_in in (1, 2, 4, 5):
        folder = tmp_path / str(dies_in)
        died = together(size, lambda ranks: work(ranks, folder, dies_in))  # noqa: B023  done before the next turn
        assert [type(each) for each in died] == [Power] * size
        assert dies_in == 1 or list(folder.glob("*.h5"))
        assert together(size, lambda ranks: work(ranks, folder)) == whole  # noqa: B023


@pytest.mark.parametrize("size", [2, 3])
def test_augmented_images_are_those_of_one_process(together: Any, recipe: Make, size: int) -> None:
    draw = torch.Generator().manual_seed(5)
    pixels = torch.randint(0, 256, (30, 3, 6, 5), generator=draw, dtype=torch.uint8)
    normalisation = Normalisation((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
    data = {"train": Split(pixels, torch.randint(0, 3, (30,), generator=draw), normalisation)}

    def trained(ranks: Ranks | None) -> dict[str, Tensor]:
        model = convolutional()
        made = recipe(batch_size=13, augmentation="crop_flip", momentum=0.9, data_parallel=ranks.size if ranks else 1)
        train(model, data, made, 0, ranks=ranks)
        return model.state_dict()

    expected = trained(None)
    for found in together(size, trained):
        for name, value in expected.items():
            assert torch.allclose(found[name], value, rtol=1e-4, atol=1e-6), name


@pytest.mark.parametrize("size", [2, 3])
def test_rare_gems_search_with_several_processes(together: Any, make_search: Callable[..., Search], size: int) -> None:
    options = rare_gems.Options(freeze_period=1)
    alone = rare_gems.find_ticket(make_search(20), options)
    searches = [make_search(20) for _ in range(size)]

    def work(ranks: Ranks) -> Any:
        search = searches[ranks.rank]
        recipe = search.recipe.model_copy(update={"data_parallel": size})
        return rare_gems.find_ticket(replace(search, recipe=recipe, ranks=ranks), options)

    tickets = together(size, work)
    for ticket in tickets:
        assert num_kept(ticket.masks) == 20
        assert ticket.search_steps == alone.search_steps
        assert ticket.search_flops == pytest.approx(alone.search_flops, rel=0.1)
        for name, mask in ticket.masks.items():
            assert torch.equal(mask, tickets[0].masks[name])
            assert (mask == alone.masks[name]).double().mean() > 0.95  # rounding may decide between two scores
            assert not ticket.start[name][~mask].any()


def test_the_statistics_of_a_scored_network_are_handed_round(together: Any, recipe: Make) -> None:
    def work(ranks: Ranks) -> dict[str, Tensor]:
        network = hidden()
        prunable = {"first.weight": network.first.weight, "last.weight": network.last.weight}
        scored = ScoredNetwork(network.requires_grad_(False), prunable, torch.Generator().manual_seed(3))
        train(scored, splits(dtype=torch.float32), recipe(batch_size=20, data_parallel=2), 0, ranks=ranks)
        return {name: buffer.clone() for name, buffer in network.named_buffers()}

    first, second = together(2, work)
    assert int(first["norm.num_batches_tracked"]) == 6
    assert first["norm.running_mean"].any()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_divergence_is_seen_by_all(together: Any, recipe: Make) -> None:
    made, data = recipe(epochs=2, batch_size=20, learning_rate=1e30, data_parallel=2), splits(dtype=torch.float32)
    found = together(2, lambda ranks: train(hidden(), data, made, 0, ranks=ranks))
    assert [type(each).__name__ for each in found] == ["TrainingDiverged"] * 2
    assert str(found[0]) == str(found[1])


def test_weights_that_drift_apart_are_an_error(together: Any, recipe: Make) -> None:
    def work(ranks: Ranks) -> Any:
        model = plain()

        def disturb() -> None:
            model[0].bias.data[0] += ranks.rank

        made = recipe(epochs=1, batch_size=50, data_parallel=2)
        return train(model, splits(), made, 0, hooks=Hooks(after_step=disturb), ranks=ranks).num_steps

    first, second = together(2, work)
    assert first == 1
    assert "of process 1 differ from those of process 0" in str(second)


def test_shards_are_contiguous_and_cover_every_batch() -> None:
    for size in (2, 3, 5):
        ranks = [Ranks(rank, size, None, CPU) for rank in range(size)]  # type: ignore[arg-type]
        for number in range(1, 40):
            parts = [range(number)[each.shard(number)] for each in ranks]
            sizes = [len(part) for part in parts]
            if number < 2 * size:
                assert parts == [range(number)] * size
            else:
                assert [index for part in parts for index in part] == list(range(number))
                assert max(sizes) - min(sizes) <= 1
                assert min(sizes) >= 2
            assert {each.num_computed(number) for each in ranks} == {sum(sizes)}


@pytest.mark.parametrize("content", [b"", b"x", bytes(range(256)) * 50])
def test_what_the_first_process_says_reaches_all(together: Any, content: bytes) -> None:
    found = together(3, lambda ranks: ranks.of_first(content if ranks.is_first else b"of no interest"))
    assert found == [content] * 3


def test_layers_draw_anew_in_each_step_and_process() -> None:
    drawn = []
    with torch.random.fork_rng(devices=[]):
        for rank, step, seed in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 0)]:
            Ranks(rank, 2, None, CPU).seed_layers(seed, step)  # type: ignore[arg-type]
            drawn.append(torch.rand(3).tolist())
    assert drawn[0] == drawn[4]
    assert len({tuple(each) for each in drawn}) == 4


def test_a_recipe_and_its_processes_belong_together(recipe: Make) -> None:
    with pytest.raises(ValueError, match=r"data_parallel=2 in a training of 1 processes\. Expected: the same number"):
        train(plain(), splits(), recipe(data_parallel=2), 0)
    assert data_parallel([]) == 1
    assert data_parallel([recipe(data_parallel=3), recipe(data_parallel=3, epochs=9)]) == 3
    with pytest.raises(ValueError, match=r"data_parallel = \[1, 3\] within one cell"):
        data_parallel([recipe(), recipe(data_parallel=3)])
