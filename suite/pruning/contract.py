"""The one contract of all pruning methods: a method finds a ticket, the cell trains and measures it.

A method decides three things: which weights stay (exactly num_keep of them), from which weights the pruned network
starts, and with which recipe it is trained from there, if at all. Training, evaluation, counting and storing are the
same for all methods and live in suite.cells.prune.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import NamedTuple

from torch import Tensor

from suite.problem import Problem
from suite.pruning.masks import Masks
from suite.strict import Settings
from suite.study import Recipe
from suite.training.checkpoint import Trainings
from suite.training.data_parallel import Ranks

State = dict[str, Tensor]


@dataclass(frozen=True)
class Search:
    """What a method may look at.

    Attributes:
        problem: the network (in any state; a method may change it) and its data.
        num_keep: weights to keep, of problem.num_prunable.
        seed: the cell's seed; draw from suite.seeds.generator(seed, purpose).
        recipe: the method's own recipe, with which its dense reference was trained.
        fine_tune_recipe: the task's plain recipe, for a trained network that is trained on after pruning.
        initial: state dict before training.
        dense: state dict of the trained dense reference.
        rewind: state dict after rewind_step steps of the dense training, for methods that ask for it.
        previous: weights and masks of the previous round, for methods that prune in rounds.
        progress: called with a fraction in [0, 1] and a short text.
        trainings: give `train` a stage of it, so that a search that is killed goes on where it was.
        ranks: give them to `train`, so that the processes of the cell share the batches of a search.
    """

    problem: Problem
    num_keep: int
    seed: int
    recipe: Recipe
    fine_tune_recipe: Recipe
    initial: State
    dense: State
    rewind: State | None
    previous: tuple[State, Masks] | None
    progress: Callable[[float, str], None]
    trainings: Trainings = field(default_factory=Trainings)
    ranks: Ranks | None = None


@dataclass(frozen=True)
class Ticket:
    """What a method found.

    Attributes:
        masks: exactly num_keep True entries over all prunable weights.
        start: state dict from which the pruned network starts.
        recipe: how it is trained from there; None: it is evaluated as it is.
        start_step: first step of that training; the schedule and the data order go on from there.
        search_steps: gradient steps spent on the search itself.
        search_flops: floating-point operations spent on the search itself.
        uses_dense: the mask or the start comes from the trained dense network, whose training is then part of the cost.
    """

    masks: Masks
    start: State
    recipe: Recipe | None
    start_step: int = 0
    search_steps: int = 0
    search_flops: float = 0.0
    uses_dense: bool = False


class Variant(NamedTuple):
    """One row of the report: a method with certain options."""

    row: str
    label: str
    options: Settings


def method_variants(module: ModuleType, name: str, options: Settings) -> list[Variant]:
    """Return the rows that a method is reported as: its own variants(options), else itself."""
    if hasattr(module, "variants"):
        return list(module.variants(options))
    return [Variant(name, module.LABEL, options)]


def rewind_step(module: ModuleType, options: Settings) -> int | None:
    """Return the step of the dense training that a method rewinds to, or None when it does not rewind."""
    return module.rewind_step(options) if hasattr(module, "rewind_step") else None


def previous_num_kept(module: ModuleType, options: Settings, num_prunable: int, num_keep: int) -> int | None:
    """Return the count that the round before num_keep kept, or None when num_keep is reached from the dense network."""
    if not hasattr(module, "previous_num_kept"):
        return None
    previous: int | None = module.previous_num_kept(options, num_prunable, num_keep)
    return previous


class PlannedTraining(NamedTuple):
    """A training that a method's cell will run.

    Attributes:
        recipe: of it.
        start_step: where it begins.
        is_search: it is the method's own, which looks at the training split alone.
    """

    recipe: Recipe
    start_step: int = 0
    is_search: bool = False


def planned_trainings(
    module: ModuleType, recipe: Recipe, fine_tune_recipe: Recipe, options: Settings
) -> list[PlannedTraining]:
    """Return the trainings of a method's cell before it runs: its own trainings(...), else one with its recipe."""
    if hasattr(module, "trainings"):
        return list(module.trainings(recipe, fine_tune_recipe, options))
    return [PlannedTraining(recipe)]
