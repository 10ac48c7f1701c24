from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from suite.problem import Problem
from suite.pruning.contract import Search
from suite.pruning.masks import num_kept, split_like
from suite.pruning.methods import rare_gems
from suite.pruning.methods.rare_gems import Options, ScoredNetwork, find_ticket, freeze_path, num_freezes
from suite.seeds import generator
from suite.splits import Split
from suite.study import Recipe
from suite.training.checkpoint import Interrupted, Notice, Trainings
from suite.training.flops import forward_flops
from suite.training.loop import Hooks, train

Make = Callable[..., Search]


def scored_network(search: Search) -> ScoredNetwork:
    search.problem.load(search.initial)
    network = ScoredNetwork(search.problem.model, search.problem.prunable, torch.Generator().manual_seed(3))
    network.active = torch.rand(72, generator=torch.Generator().manual_seed(4)) < 0.7
    return network


def loss(logits: Tensor, search: Search) -> Tensor:
    return nn.functional.cross_entropy(logits, search.problem.splits["train"][1])


def test_the_network_computes_with_the_chosen_weights_alone(make_search: Make) -> None:
    search = make_search()
    network, inputs = scored_network(search), search.problem.splits["train"][0]
    chosen = split_like((network.scores.detach() > 0.5) & network.active, network.weights)
    effective = {name: weight * chosen[name] for name, weight in network.weights.items()}
    for name, weight in effective.items():  # signed constants: 0 or +- sqrt(2 / fan_in)
        size = (2 / weight.shape[1]) ** 0.5
        assert ((weight == 0) | torch.isclose(weight.abs(), torch.tensor(size))).all(), name
    expected = functional_call(search.problem.model, effective, (inputs,))
    assert torch.allclose(network(inputs), expected, atol=1e-6)


def test_the_gradient_passes_straight_through(make_search: Make) -> None:
    # dL/dp = dL/dw_effective * w * active, whether or not the weight takes part just now.
    search = make_search()
    network, inputs = scored_network(search), search.problem.splits["train"][0]
    (gradient,) = torch.autograd.grad(loss(network(inputs), search), network.scores)
    chosen = split_like((network.scores.detach() > 0.5) & network.active, network.weights)
    effective = {name: (weight * chosen[name]).requires_grad_() for name, weight in network.weights.items()}
    logits = functional_call(search.problem.model, effective, (inputs,))
    gradients = torch.autograd.grad(loss(logits, search), tuple(effective.values()))
    products = [g * w for g, w in zip(gradients, network.weights.values(), strict=True)]
    expected = torch.cat([product.flatten() for product in products]) * network.active
    assert torch.allclose(gradient, expected, rtol=1e-5, atol=1e-8)
    below = network.active & (network.scores.detach() <= 0.5)
    assert gradient[below].any()  # what is left out can come back
    assert not gradient[~network.active].any()  # what is frozen out cannot


@pytest.mark.parametrize(
    ("epochs", "period", "freezes"),
    [(150, 5, 29), (151, 5, 30), (10, 5, 1), (11, 5, 2), (6, 5, 1), (2, 5, 1), (3, 1, 2)],
)
def test_freezing_happens_every_period_but_never_after_the_last_epoch(epochs: int, period: int, freezes: int) -> None:
    assert num_freezes(epochs, period) == freezes


@pytest.mark.parametrize(("total", "keep", "freezes"), [(268_336, 3_864, 29), (72, 1, 5), (72, 72, 3), (100, 99, 7)])
def test_the_path_is_geometric_and_ends_exactly(total: int, keep: int, freezes: int) -> None:
    path = freeze_path(total, keep, freezes)
    assert len(path) == freezes
    assert path[-1] == keep
    assert all(before >= after for before, after in zip([total, *path], path, strict=False))
    for turn, count in enumerate(path, 1):
        assert abs(count - total * (keep / total) ** (turn / freezes)) <= 0.5


def test_the_path_by_hand() -> None:
    assert freeze_path(1000, 1, 3) == [100, 10, 1]


class Watched:
    """Replaces the loop by one that looks at scores and active weights after every step and every epoch."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lowest: list[float] = []
        self.highest: list[float] = []
        self.active: list[Tensor] = []
        self.recipe: Recipe | None = None
        self._train = train
        monkeypatch.setattr(rare_gems, "train", self.train)

    def train(self, model: ScoredNetwork, splits: Any, recipe: Recipe, seed: int, **options: Any) -> Any:
        hooks, self.recipe = options["hooks"], recipe

        def after_step() -> None:
            hooks.after_step()
            self.lowest.append(float(model.scores.detach().min()))
            self.highest.append(float(model.scores.detach().max()))

        def after_epoch(epoch: int) -> None:
            hooks.after_epoch(epoch)
            self.active.append(model.active.clone())

        options["hooks"] = Hooks(hooks.penalty, after_step, after_epoch)
        return self._train(model, splits, recipe, seed, **options)


def test_scores_stay_between_zero_and_one_and_freezing_is_for_good(
    make_search: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(monkeypatch)
    options = Options(search_epochs=7, freeze_period=2, score_learning_rate=5.0)
    ticket = find_ticket(make_search(9), options)
    assert min(watched.lowest) == 0.0  # the clamp was needed
    assert max(watched.highest) == 1.0
    path = freeze_path(72, 9, 3)
    assert [int(active.sum()) for active in watched.active] == [72, path[0], path[0], path[1], path[1], 9, 9]
    for before, after in zip(watched.active, watched.active[1:], strict=False):
        assert not (after & ~before).any()
    assert torch.equal(torch.cat([mask.flatten() for mask in ticket.masks.values()]), watched.active[-1])


def test_the_lowest_scores_are_frozen_out(make_search: Make) -> None:
    network = scored_network(make_search())
    before = network.active.clone()
    rare_gems._freeze_down_to(network, 20, torch.Generator())
    assert int(network.active.sum()) == 20
    scores = network.scores.detach()
    assert scores[network.active].min() > scores[before & ~network.active].max()


def test_the_count_is_exact_when_all_scores_tie_at_zero(make_search: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    options = Options(search_epochs=5, freeze_period=1, score_penalty=1e3)  # one step takes every score to zero
    masks = [find_ticket(make_search(10, seed=seed), options).masks for seed in (0, 1)]
    assert max(watched.highest) == 0.0
    assert [num_kept(found) for found in masks] == [10, 10]
    flat = [torch.cat([mask.flatten() for mask in found.values()]) for found in masks]
    assert not torch.equal(flat[0], flat[1])  # seeded, not the lower index: that would empty the last layers
    assert flat[0][48:].any()


def test_scores_are_trained_by_their_own_recipe(
    make_search: Make, monkeypatch: pytest.MonkeyPatch, recipe: Callable[..., Recipe]
) -> None:
    watched = Watched(monkeypatch)
    mine = recipe(epochs=9, momentum=0.8, weight_decay=0.1, l1=0.1, schedule="step", milestones=(3,), warmup_epochs=2)
    find_ticket(make_search(10, recipe=mine), Options(score_learning_rate=0.25))
    assert watched.recipe == recipe(epochs=9, momentum=0.8, schedule="cosine", learning_rate=0.25)


def test_scores_may_be_trained_by_adam(
    make_search: Make, monkeypatch: pytest.MonkeyPatch, recipe: Callable[..., Recipe]
) -> None:
    watched = Watched(monkeypatch)
    mine = recipe(epochs=9, momentum=0.9, nesterov=True)  # of the weights
    ticket = find_ticket(make_search(10, recipe=mine), Options(score_optimiser="adam", score_learning_rate=0.01))
    assert watched.recipe is not None
    assert (watched.recipe.optimiser, watched.recipe.nesterov) == ("adam", False)
    assert ticket.recipe == mine
    assert num_kept(ticket.masks) == 10
    find_ticket(make_search(10, recipe=mine.model_copy(update={"optimiser": "adam", "nesterov": False})), Options())
    assert watched.recipe.optimiser == "sgd"


def test_a_search_too_short_to_freeze_is_lengthened(make_search: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    ticket = find_ticket(make_search(10), Options(search_epochs=2, freeze_period=4))
    assert watched.recipe is not None
    assert watched.recipe.epochs == 5
    assert num_kept(ticket.masks) == 10
    assert ticket.search_steps == 5 * 5  # 160 examples in batches of 32


def test_survivors_start_from_their_initial_values(make_search: Make) -> None:
    search = make_search(20)
    ticket = find_ticket(search, Options(freeze_period=1))
    for name, value in search.initial.items():
        expected = value * ticket.masks[name] if name in ticket.masks else value
        assert torch.equal(ticket.start[name], expected)
    assert (ticket.recipe, ticket.start_step, ticket.uses_dense) == (search.recipe, 0, False)


def test_the_search_leaves_the_network_trainable_and_its_weights_alone(make_search: Make) -> None:
    search = make_search(20)
    find_ticket(search, Options(freeze_period=1))
    assert all(parameter.requires_grad for parameter in search.problem.model.parameters())
    assert all(torch.equal(value, search.initial[name]) for name, value in search.problem.state().items())


def test_the_penalty_is_the_sum_of_squares_of_active_scores(make_search: Make) -> None:
    network = scored_network(make_search())
    expected = 0.5 * float((network.scores.detach()[network.active] ** 2).sum())
    assert rare_gems._penalty(network, 0.5)().item() == pytest.approx(expected, rel=1e-6)


def test_a_step_on_a_score_by_hand(make_search: Make, recipe: Callable[..., Recipe]) -> None:
    # Plain gradient descent with projection on [0, 1], from the gradient of loss and penalty.
    search = make_search()
    network, inputs = scored_network(search), search.problem.splits["train"].inputs
    before = network.scores.detach().clone()
    (gradient,) = torch.autograd.grad(
        loss(network(inputs), search) + rare_gems._penalty(network, 0.1)(), network.scores
    )

    def clamp() -> None:
        network.scores.data.clamp_(0, 1)

    hooks = Hooks(penalty=rare_gems._penalty(network, 0.1), after_step=clamp)
    search.problem.model.requires_grad_(False)
    made = recipe(epochs=1, batch_size=160, learning_rate=2.0)
    train(network, {"train": search.problem.splits["train"]}, made, 0, hooks=hooks)
    assert torch.allclose(network.scores, (before - 2.0 * gradient).clamp(0, 1), atol=1e-6)


def test_the_search_pays_for_the_weights_that_take_part(make_search: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    search = make_search(72)
    options = Options(search_epochs=2, freeze_period=1, score_learning_rate=1e-9, score_penalty=0.0)
    ticket = find_ticket(search, options)
    draw = generator(search.seed, "scores")
    scores = torch.cat([torch.rand(48, generator=draw), torch.rand(24, generator=draw)])
    per_example = forward_flops(search.problem.model, search.problem.splits["train"])
    fractions = {"1.weight": (scores[:48] > 0.5).float().mean(), "3.weight": (scores[48:] > 0.5).float().mean()}
    each_epoch = 3 * 160 * sum(per_example[name] * float(fraction) for name, fraction in fractions.items())
    assert ticket.search_flops == pytest.approx(2 * each_epoch, rel=1e-6)
    assert len(watched.active) == 2


class Steps:
    """Counts the steps of searches, and their freezes; tells a search to stop in one of its steps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.notice, self.stops_in = Notice(), 0
        self.num_steps = self.num_freezes = 0
        self._penalty, self._freeze = rare_gems._penalty, rare_gems._freeze_down_to
        monkeypatch.setattr(rare_gems, "_penalty", self.penalty)
        monkeypatch.setattr(rare_gems, "_freeze_down_to", self.freeze)

    def penalty(self, scored: ScoredNetwork, strength: float) -> Callable[[], Tensor]:
        inner = self._penalty(scored, strength)

        def count() -> Tensor:
            self.num_steps += 1
            self.notice.stop = self.num_steps == self.stops_in
            return inner()

        return count

    def freeze(self, scored: ScoredNetwork, *rest: Any) -> None:
        self.num_freezes += 1
        self._freeze(scored, *rest)


@pytest.mark.parametrize("stops_in", range(1, 16))
def test_a_search_that_is_stopped_in_any_step_finds_the_same_ticket(
    make_search: Make, recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stops_in: int
) -> None:
    mine = recipe(epochs=3, momentum=0.9)
    options = Options(freeze_period=1, score_learning_rate=5.0, score_penalty=0.1)  # so that many scores tie at zero
    expected = find_ticket(make_search(9, recipe=mine), options)
    steps = Steps(monkeypatch)
    steps.stops_in = stops_in
    with pytest.raises(Interrupted, match=f"search at step {stops_in}"):
        find_ticket(make_search(9, recipe=mine, trainings=Trainings(tmp_path, "mine", steps.notice)), options)
    found = find_ticket(make_search(9, recipe=mine, trainings=Trainings(tmp_path, "mine")), options)
    assert (steps.num_steps, steps.num_freezes) == (15, 2)
    assert all(torch.equal(found.masks[name], mask) for name, mask in expected.masks.items())
    assert (found.search_steps, found.search_flops) == (expected.search_steps, expected.search_flops)


def of_images(make_search: Make, **changes: Any) -> Search:
    """Return a search in a network of convolutions."""
    draw = torch.Generator().manual_seed(5)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(6)
        model = nn.Sequential(
            *(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 8, 3, bias=False)),
            *(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)),
        )
    images = Split(torch.randn(160, 3, 8, 8, generator=draw), torch.randint(0, 3, (160,), generator=draw))
    problem = Problem(model, {"train": images})
    state = problem.state()
    return make_search(60, **({"problem": problem, "initial": state, "dense": state, "rewind": state} | changes))


def test_convolutions_search_channels_last(make_search: Make) -> None:
    search = of_images(make_search)
    found: list[tuple[bool, ...]] = []

    def look(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if module.training:
            tensors = (inputs[0], module.weight, output)
            found.append(tuple(each.is_contiguous(memory_format=torch.channels_last) for each in tensors))

    for index in (0, 3):
        search.problem.model[index].register_forward_hook(look)
    ticket = find_ticket(search, Options(freeze_period=1))
    assert found[-2:] == [(True, True, True)] * 2
    assert set(found) == {(True, True, True)}
    assert len(found) == 2 * ticket.search_steps
    assert all(weight.is_contiguous() for weight in search.problem.prunable.values())
    assert num_kept(ticket.masks) == 60


def test_the_memory_order_changes_the_scored_network_by_rounding_alone(make_search: Make) -> None:
    search = of_images(make_search)
    model, inputs = search.problem.model.double().train(), search.problem.splits["train"].inputs[:8].double()
    network = ScoredNetwork(model, search.problem.prunable, torch.Generator().manual_seed(3)).double()
    chosen = split_like((network.scores.detach() > 0.5).double(), network.weights)
    effective = {name: (w.detach() * chosen[name]).contiguous() for name, w in search.problem.prunable.items()}
    expected = functional_call(model, effective, (inputs,))
    found = network(inputs.contiguous(memory_format=torch.channels_last))
    assert torch.allclose(found, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("stops_in", [1, 4, 5, 6, 11, 14])
def test_a_search_of_convolutions_that_is_stopped_ends_with_the_same_bits(
    make_search: Make, recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stops_in: int
) -> None:
    scores: list[Tensor] = []

    def watched(model: ScoredNetwork, *args: Any, **options: Any) -> Any:
        history = train(model, *args, **options)
        scores.append(model.scores.detach().clone())
        return history

    monkeypatch.setattr(rare_gems, "train", watched)
    mine, options = recipe(epochs=3, momentum=0.9), Options(freeze_period=1, score_learning_rate=5.0)
    expected = of_images(make_search, recipe=mine)
    masks = find_ticket(expected, options).masks
    steps = Steps(monkeypatch)
    steps.stops_in = stops_in
    with pytest.raises(Interrupted, match=f"search at step {stops_in}"):
        find_ticket(of_images(make_search, recipe=mine, trainings=Trainings(tmp_path, "a", steps.notice)), options)
    resumed = of_images(make_search, recipe=mine, trainings=Trainings(tmp_path, "a"))
    found = find_ticket(resumed, options).masks
    assert torch.equal(*scores)
    assert all(torch.equal(found[name], mask) for name, mask in masks.items())
    buffers = dict(resumed.problem.model.named_buffers())
    assert all(torch.equal(value, buffers[name]) for name, value in expected.problem.model.named_buffers())
