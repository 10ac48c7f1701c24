"""Rare Gems: train scores instead of weights, freeze the lowest ones on the way, then train what is left.

Search: the weights stay at their signed-constant initial values; each prunable weight has a score p in [0, 1] and the
network computes with w * 1[p > 0.5]. Scores are trained by the straight-through estimator with a penalty on p^2,
clamped after every step; every freeze_period epochs the lowest scores are frozen out for good, on a geometric path
that ends at exactly num_keep. Then the surviving weights are trained from their initial values.

Source: Sreenivasan et al. (2022), "Rare Gems: Finding Lottery Tickets at Initialization", NeurIPS (GEM-MINER).
Differs: exact counts (the original freezes all ties at zero); ties at zero fall in a seeded random order; every
layer is counted and frozen; the penalty acts on active scores; biases stay at zero during the search.
Cost: search_epochs and one training; two numbers per prunable weight.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call

from suite.errors import TrainingDiverged
from suite.memory_order import in_order_of
from suite.problem import Problem
from suite.pruning.contract import PlannedTraining, Search, Ticket
from suite.pruning.masks import keep_top_globally, masked, split_like
from suite.seeds import generator
from suite.strict import Settings
from suite.study import Recipe
from suite.training.flops import forward_flops, training_flops
from suite.training.hooks import Hooks
from suite.training.loop import train

LABEL = "Rare Gems"
VERSION = 2  # networks of convolutions search channels-last
PRUNES = True
THRESHOLD = 0.5  # a weight takes part while its score is above this


class Options(Settings):
    """The search: search_epochs None means as long as the training; scores are trained with a cosine."""

    search_epochs: Annotated[int, Field(ge=2)] | None = None
    freeze_period: Annotated[int, Field(ge=1)] = 5  # epochs, as in most of the original's configurations
    score_optimiser: Literal["sgd", "adam"] = "sgd"  # the original takes either, with the momentum of the recipe
    score_learning_rate: Annotated[float, Field(gt=0)] = 0.1
    score_penalty: Annotated[float, Field(ge=0)] = 1e-5  # per squared score; 1e-8 to 1e-4 in the original


def smoke(options: Options) -> Options:
    """Return options that search for two epochs and freeze between them."""
    return options.model_copy(update={"search_epochs": 2, "freeze_period": 1})


class ScoredNetwork(nn.Module):
    """A network with frozen weights whose parameters are one vector of scores over its prunable weights."""

    def __init__(self, network: nn.Module, prunable: dict[str, nn.Parameter], draw: torch.Generator) -> None:
        """Draw scores uniformly from [0, 1]; nothing is frozen out yet."""
        super().__init__()
        self.network = [network]  # in a list: its parameters are not ours to train
        self.weights = {name: in_order_of(network, weight.detach().clone()) for name, weight in prunable.items()}
        scores = torch.cat([torch.rand(weight.numel(), generator=draw) for weight in self.weights.values()])
        device = next(iter(self.weights.values())).device
        self.scores = nn.Parameter(scores.to(device))
        self.active = torch.ones(scores.shape, dtype=torch.bool, device=device)

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute with w * 1[p > 0.5] * active; the gradient passes straight through the indicator."""
        indicator = (self.scores > THRESHOLD).to(self.scores.dtype)
        straight_through = (indicator - self.scores).detach() + self.scores
        chosen = split_like(straight_through * self.active, self.weights)
        # the weight stands first: products take its memory order
        effective = {name: weight * chosen[name] for name, weight in self.weights.items()}
        output: Tensor = functional_call(self.network[0], effective, (inputs,))
        return output

    def modules(self, *args: Any, **options: Any) -> Iterator[nn.Module]:
        """Yield those of the network too: by them a training knows whether images come channels-last."""
        yield from super().modules(*args, **options)
        yield from self.network[0].modules(*args, **options)

    def named_buffers(self, *args: Any, **options: Any) -> Iterator[tuple[str, Tensor]]:
        """Yield those of the network: they are all that changes in it, and belong to a state of the search."""
        return self.network[0].named_buffers(*args, **options)

    def train(self, mode: bool = True) -> "ScoredNetwork":
        """Also switch the network, whose normalisation follows the batch during the search."""
        self.network[0].train(mode)
        return super().train(mode)


def trainings(recipe: Recipe, fine_tune_recipe: Recipe, options: Options) -> list[PlannedTraining]:
    """Return the search, and the training of what it found."""
    del fine_tune_recipe
    search = _search_recipe(recipe, options, options.search_epochs or recipe.epochs)
    return [PlannedTraining(search, is_search=True), PlannedTraining(recipe)]


def find_ticket(search: Search, options: Options) -> Ticket:
    """Search by scores and freezing, return the active set on the initial weights."""
    problem = search.problem
    problem.load(search.initial)
    epochs = options.search_epochs or search.recipe.epochs
    scored = ScoredNetwork(problem.model, problem.prunable, generator(search.seed, "scores"))
    path = freeze_path(problem.num_prunable, search.num_keep, num_freezes(epochs, options.freeze_period))
    ties = generator(search.seed, "mask", "rare_gems")
    freezing = _Freezing(scored, problem, path, options.freeze_period, ties)

    def clamp() -> None:
        scored.scores.data.clamp_(0, 1)

    hooks = Hooks(
        _penalty(scored, options.score_penalty), clamp, freezing.after_epoch, freezing.state, freezing.restore
    )
    recipe = _search_recipe(search.recipe, options, epochs)
    problem.model.requires_grad_(False)  # only scores are trained
    data = {"train": problem.splits["train"]}
    stage = search.trainings.stage("search")
    try:
        history = train(
            scored, data, recipe, search.seed, hooks=hooks, progress=search.progress, stage=stage, ranks=search.ranks
        )
    except TrainingDiverged as error:
        repair = f"Lower options.rare_gems.score_learning_rate = {options.score_learning_rate:g}."
        raise TrainingDiverged(f"In the search for scores: {error.finding}", error.cause, repair) from error
    problem.model.requires_grad_(True)
    masks = {name: mask.cpu() for name, mask in split_like(scored.active, scored.weights).items()}
    return Ticket(
        masks,
        masked(search.initial, masks),
        search.recipe,
        search_steps=history.num_steps,
        search_flops=freezing.flops.total,
    )


def num_freezes(epochs: int, period: int) -> int:
    """Return how often the search freezes: after every period epochs but never after the last epoch, at least once."""
    return max(1, (epochs - 1) // period)


def freeze_path(num_prunable: int, num_keep: int, freezes: int) -> list[int]:
    """Return the active counts after each freeze: a geometric path from num_prunable that ends at num_keep."""
    ratio = num_keep / num_prunable
    path = [max(num_keep, round(num_prunable * ratio ** (turn / freezes))) for turn in range(1, freezes + 1)]
    return [*path[:-1], num_keep]


def _search_recipe(recipe: Recipe, options: Options, epochs: int) -> Recipe:
    return recipe.model_copy(
        update={
            "compile": "none",  # what is frozen changes after epochs, and would be compiled anew each time
            "epochs": max(epochs, options.freeze_period + 1),
            "optimiser": options.score_optimiser,
            "nesterov": recipe.nesterov and options.score_optimiser == "sgd",
            "learning_rate": options.score_learning_rate,
            "weight_decay": 0.0,
            "l1": 0.0,
            "schedule": "cosine",
            "milestones": (),
            "warmup_epochs": 0,
        }
    )


def _penalty(scored: ScoredNetwork, strength: float) -> Callable[[], Tensor]:
    return lambda: strength * (scored.scores * scored.active).square().sum()


def _freeze_down_to(scored: ScoredNetwork, num_active: int, ties: torch.Generator) -> None:
    """Keep exactly the num_active highest scores among the active ones."""
    scores, active = {"": scored.scores.detach().cpu()}, {"": scored.active.cpu()}
    kept = keep_top_globally(scores, num_active, within=active, tie_break=ties)[""]
    scored.active = kept.to(scored.active.device)


class _Freezing:
    """Freezes scores out after epochs, and counts operations: what the search holds beside its scores.

    Args:
        scored: the network.
        problem: that it is made of.
        path: active counts after each freeze.
        period: epochs from one freeze to the next.
        ties: orders equal scores.
    """

    def __init__(
        self, scored: ScoredNetwork, problem: Problem, path: list[int], period: int, ties: torch.Generator
    ) -> None:
        self.scored, self.path, self.period, self.ties = scored, path, period, ties
        self.flops = _SearchFlops(problem)

    def after_epoch(self, finished_epochs: int) -> None:
        self.flops.add_epoch(self.scored)
        turn = finished_epochs // self.period
        if finished_epochs % self.period == 0 and turn <= len(self.path):
            _freeze_down_to(self.scored, self.path[turn - 1], self.ties)

    def state(self) -> dict[str, Tensor]:
        """Return all of it, for a checkpoint."""
        flops = torch.tensor(self.flops.total, dtype=torch.float64)
        return {"active": self.scored.active, "ties": self.ties.get_state(), "flops": flops}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Set it again; in a training, without gradients."""
        self.scored.active = tensors["active"].to(self.scored.active.device)
        self.ties.set_state(tensors["ties"])
        self.flops.total = float(tensors["flops"])


class _SearchFlops:
    """Adds up the operations of the search; each epoch is weighted by the weights that took part at its end."""

    def __init__(self, problem: Problem) -> None:
        self.num_examples = len(problem.splits["train"].targets)
        self.per_example = forward_flops(problem.model, problem.splits["train"])
        self.total = 0.0

    def add_epoch(self, scored: ScoredNetwork) -> None:
        masks = split_like(scored.active & (scored.scores.detach() > THRESHOLD), scored.weights)
        self.total += training_flops(self.per_example, masks, self.num_examples)
