"""Rates of one network and recipe on this machine: measured once, for whatever cells of a plan train or measure it."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch

from suite.curvature.allocation import Growth
from suite.datasets import Located
from suite.estimate.memory import evaluation_growth, products_bytes, training_bytes, training_growth
from suite.estimate.timing import (
    Timing,
    Trial,
    eigendecomposition_s,
    evaluation_timing,
    product_timing,
    step_timing,
    threads,
)
from suite.estimate.work import Sizes, Work, of_one_process
from suite.network import ModelSpec, build_model, prunable_weights, shapes_only
from suite.study import Recipe
from suite.training.flops import BACKWARD_FACTOR, example_flops

_STEP_SHARE, _EVALUATION_SHARE, _PRODUCT_SHARE = 0.5, 0.2, 0.3  # of a budget
# Forward and backward, and the same once more in the direction of the vector; kept graphs save a part of it.
PRODUCT_FACTOR = 2 * BACKWARD_FACTOR
_PLAN_PRODUCTS = 50  # examples that trial products of a memory plan pass over
# fields of a recipe that change no step's time, or that a trial does without
_NO_TIME = {
    "epochs": 1,
    "compile": "none",  # compiling takes minutes, which only a long training earns
    "nesterov": False,
    "learning_rate": 1e-6,  # small: random examples are no reason to diverge
    "weight_decay": 0.0,
    "l1": 0.0,
    "l1_scope": "prunable",
    "schedule": "constant",
    "milestones": (),
    "warmup_epochs": 0,
    "initialisation": "kaiming_normal",
}


@dataclass(frozen=True)
class Subject:
    """What rates belong to: a network, its data as a trial needs them, and the number of threads."""

    spec: ModelSpec
    located: Located
    threads: int

    def sizes(self) -> Sizes:
        """Count weights and examples."""
        located = self.located
        with shapes_only(self.spec):
            model = build_model(self.spec)
        state, prunable = model.state_dict().values(), prunable_weights(model).values()
        item = 1 if located.is_pixels else located.input_dtype.itemsize
        return Sizes(
            located.num_train,
            located.num_validation,
            located.num_test,
            sum(weight.numel() for weight in prunable),
            len(prunable),
            sum(value.numel() for value in state),
            len(state),
            item * torch.Size(located.input_shape).numel() + torch.int64.itemsize,
        )


@dataclass
class Rates:
    """Measures a subject's rates, each when it is first asked for.

    Attributes:
        subject: see Subject.
        device: "cpu" or "cuda".
        budget_s: for all timings of one recipe.
        told: called with what is being measured.
    """

    subject: Subject
    device: str
    budget_s: float
    told: Callable[[str], None]
    steps: dict[str, Timing] = field(default_factory=dict)
    evaluation: Timing | None = None
    products: dict[str, Timing] = field(default_factory=dict)
    _eigen_s: float | None = None  # per cube of the dimension
    _steps_of_any_batch: dict[str, Timing] = field(default_factory=dict)
    _growths: dict[str, Growth] = field(default_factory=dict)
    _evaluating: tuple[Growth, int] | None = None  # and how many examples at once
    _memory: dict[str, int | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Count what needs no measurement."""
        self.sizes = self.subject.sizes()
        self.forward_flops = example_flops(self.subject.spec, self.subject.located.input_dtype)

    def step(self, recipe: Recipe) -> Timing:
        """Return the time of a gradient step with a recipe's batch, or with one process's share of it."""
        recipe = of_one_process(recipe)
        key = _what_takes_time(recipe).model_dump_json()
        slow = self._steps_of_any_batch.get(_of_any_batch(recipe))
        if key not in self.steps and slow is not None and slow.is_extrapolated:
            self.steps[key] = replace(slow, wanted=recipe.batch_size)  # by example, as it would be again
        if key not in self.steps:
            self.told(f"steps of {recipe.batch_size} examples")
            with threads(self.subject.threads):
                self.steps[key] = step_timing(self._trial(recipe), _STEP_SHARE * self.budget_s)
            self._steps_of_any_batch[_of_any_batch(recipe)] = self.steps[key]
        return self.steps[key]

    def evaluated(self, recipe: Recipe) -> Timing:
        """Return the time of an evaluation."""
        if self.evaluation is None:
            self.told("evaluations")
            with threads(self.subject.threads):
                most, budget_s = self.sizes.num_train, _EVALUATION_SHARE * self.budget_s
                self.evaluation = evaluation_timing(self._trial(recipe), most, budget_s)
        return self.evaluation

    def product(self, recipe: Recipe, dtype: str) -> Timing:
        """Return the time of a Hessian product."""
        if dtype not in self.products:
            self.told(f"Hessian products in {dtype}")
            with threads(self.subject.threads), _unsaid():
                most, budget_s = self.sizes.num_train, _PRODUCT_SHARE * self.budget_s
                self.products[dtype] = product_timing(self._trial(recipe), dtype, most, budget_s)
        return self.products[dtype]

    def measured(self) -> list[Timing]:
        """Return all timings that were made."""
        return [*self.steps.values(), *([self.evaluation] if self.evaluation else []), *self.products.values()]

    def eigendecomposition_s(self, dim: int) -> float:
        """Return the time of a full eigendecomposition in float64."""
        if self._eigen_s is None:
            self.told("an eigendecomposition")
            with threads(self.subject.threads):
                self._eigen_s = eigendecomposition_s(self.device)
        return self._eigen_s * dim**3

    def device_bytes(self, recipe: Recipe, work: Work) -> int | None:
        """Return the peak of a cell's work on the device, in each of its processes; None: too slow to measure."""
        found = [self._of_training(each.recipe) for each in work.trainings] or [self._of_training(recipe)]
        if work.products.high:
            found.append(self._of_products(recipe, work))
        return None if None in found else max(each for each in found if each is not None)

    def _of_training(self, recipe: Recipe) -> int | None:
        key = _of_any_batch(recipe)
        if key not in self._growths:
            self.told("memory of a training")
            with threads(self.subject.threads):
                self._growths[key] = training_growth(self._trial(recipe))
        if self._evaluating is None:
            self.told("memory of an evaluation")
            with threads(self.subject.threads):
                trial = self._trial(recipe)
                self._evaluating = evaluation_growth(trial), trial.evaluation_batch()
        return training_bytes(self._growths[key], *self._evaluating, recipe, self.sizes)

    def _of_products(self, recipe: Recipe, work: Work) -> int | None:
        key = f"{work.dtype} {work.num_rows} {work.matrix_dim}"
        if key not in self._memory:
            timing, found = self.product(recipe, work.dtype), None
            if timing.per_example_s * _PLAN_PRODUCTS < self.budget_s:
                self.told("memory of Hessian products")
                with threads(self.subject.threads), _unsaid():
                    found = products_bytes(self._trial(recipe), self.sizes, work)
            self._memory[key] = found
        return self._memory[key]

    def _trial(self, recipe: Recipe) -> Trial:
        located = self.subject.located
        recipe = _what_takes_time(recipe)
        return Trial(self.subject.spec, recipe, located.is_pixels, located.input_dtype, self.device)


def _of_any_batch(recipe: Recipe) -> str:
    """Return what a slow network's time per example depends on, and its memory: its passes, not its optimiser."""
    changes = {"batch_size": 1, "micro_batch_size": None, "optimiser": "sgd", "momentum": 0.0}
    return _what_takes_time(recipe).model_copy(update=changes).model_dump_json()


def _what_takes_time(recipe: Recipe) -> Recipe:
    """Return a recipe that takes as long per step: another one with the same needs no measurement of its own."""
    return of_one_process(recipe).model_copy(update=_NO_TIME)


@contextmanager
def _unsaid() -> Iterator[None]:
    """Keep the plans of trials to ourselves: they are not those of cells."""
    logger = logging.getLogger("suite.curvature")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)
