"""A study made small: every cell that it has, in a few steps on generated data, before anything is spent on it.

Kept: models, input shapes, numbers of classes, methods, analyses, recipes but for their length. Made small: the data
(a few synthetic examples, so no archive has to be there), the training (two epochs at a small learning rate, for a
network that diverges says nothing about its cells), seeds and sparsities (the first seed, the highest sparsity), and
whatever effort methods and analyses have to choose, each by its own `smoke`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch

from suite.catalogue import analyses
from suite.datasets import stand_in
from suite.errors import UserError
from suite.extensions import load
from suite.network import model_spec, num_prunable
from suite.planner import check_names, checked_options
from suite.study import Recipe, Study, Task
from suite.training.data_parallel import LEAST
from suite.training.flops import example_flops

SUFFIX = "-smoke"
MAX_EXAMPLES = 64  # two batches of an epoch, and more than the curvature takes without a plan of its memory
_MAX_FLOPS = 2e10  # of an epoch's forward passes: a second on one core, and some ten times that in a whole smoke
_MAX_LEARNING_RATE = 1e-3
_MAX_NAME = 64


@dataclass(frozen=True)
class Smoke:
    """A small study, its tasks, and the analyses that were left out, one line each."""

    study: Study
    tasks: dict[str, Task]
    left_out: tuple[str, ...] = ()


def smoke(study: Study, tasks: Mapping[str, Task]) -> Smoke:
    """Make a study small. Neither its data nor its folder are touched; of a user's own file the form is read.

    Args:
        study: with all overrides.
        tasks: its tasks by name.

    Raises:
        UserError: what planning the study would refuse without its data; or it has nothing but analyses, and none of
            them is small enough.

    Cost: two forward passes of each network, where it is a user's own; no more than its shapes else.
    """
    check_names(study)
    networks = {name: _Network.of(task) for name, task in tasks.items()}
    kept, left_out = [], []
    for analysis in study.analyses:
        if (reason := _too_large(analysis, networks)) is None:
            kept.append(analysis)
        else:
            left_out.append(reason)
    if not kept and not study.methods:
        raise UserError(f"study {study.name} has nothing small enough: {'; '.join(left_out)}. Run it without --smoke.")
    small = study.model_copy(
        update={
            "name": study.name[: _MAX_NAME - len(SUFFIX)] + SUFFIX,
            "description": f"A smoke of {study.name}: a few steps on generated data, whose numbers mean nothing",
            "smoke_of": study.name,
            "seeds": study.seeds[:1],
            "sparsities": (max(study.sparsities),) if study.sparsities else (),
            "analyses": tuple(kept),
            "options": {},  # the tasks have them all
        }
    )
    return Smoke(small, {name: _small(study, tasks[name], networks[name]) for name in tasks}, tuple(left_out))


@dataclass(frozen=True)
class _Network:
    """What a task's network is like: its data's form, its prunable weights, one example's forward pass."""

    form: dict[str, Any]
    num_weights: int
    flops: float

    @classmethod
    def of(cls, task: Task) -> "_Network":
        form = stand_in(task.data, task.data_options)
        spec = model_spec(task.model, task.model_options, tuple(form["input_shape"]), form["num_classes"])
        dtype = torch.long if form.get("kind") == "tokens" else torch.float32
        return cls(form, num_prunable(spec, dtype), example_flops(spec, dtype))

    @property
    def num_examples(self) -> int:
        """An even number, for batch normalisation takes no batch of one."""
        return max(2, min(MAX_EXAMPLES, int(_MAX_FLOPS / max(self.flops, 1.0))) // 2 * 2)


def _too_large(analysis: str, networks: Mapping[str, _Network]) -> str | None:
    """Return why an analysis is left out, None where it is not."""
    most = getattr(load("suite.cells", analysis, "analysis"), "SMOKE_MAX_WEIGHTS", None)
    for name, network in networks.items():
        if most is not None and network.num_weights > most:
            return f"{analysis}: task {name} has {network.num_weights} weights, and it is tried up to {most}"
    return None


def _small(study: Study, task: Task, network: _Network) -> Task:
    num_examples = max(network.num_examples, LEAST * task.training.data_parallel)
    sizes = {"num_train": num_examples} | dict.fromkeys(("num_validation", "num_test"), max(2, num_examples // 4))
    training = task.training.model_copy(update=_short(task.training, num_examples))
    recipes = {
        method: differing | _short(task.recipe(method), num_examples) for method, differing in task.recipes.items()
    }
    values = {
        "data": "synthetic",
        "data_options": network.form | sizes,
        "training": training,
        "recipes": recipes,
        "options": dict(_options(study, task)),
    }
    return task.model_copy(update=values)


def _short(recipe: Recipe, num_examples: int) -> dict[str, Any]:
    """Return what a recipe of two epochs has otherwise: two batches each, or one where processes share that few."""
    batch_size = max(LEAST * recipe.data_parallel, num_examples // 2)
    return {
        "epochs": 2,
        "batch_size": batch_size,
        "micro_batch_size": recipe.micro_batch_size
        and min(recipe.micro_batch_size, batch_size // recipe.data_parallel),
        "learning_rate": min(recipe.learning_rate, _MAX_LEARNING_RATE),
        "milestones": (1,) if recipe.milestones else (),
        "warmup_epochs": min(recipe.warmup_epochs, 1),
    }


def _options(study: Study, task: Task) -> Iterable[tuple[str, dict[str, Any]]]:
    """Yield the small options of every method of the study and of every analysis: some ask for another's."""
    folders = {"suite.pruning.methods": study.methods, "suite.cells": analyses()}
    for folder, names in folders.items():
        for name in names:
            module = load(folder, name, "method or analysis")
            yield name, _small_options(checked_options(study, task, name, module), module)


def _small_options(options: Any, module: ModuleType) -> dict[str, Any]:
    small = module.smoke(options) if hasattr(module, "smoke") else options
    values: dict[str, Any] = small.model_dump(mode="json", exclude_none=True)
    return values
