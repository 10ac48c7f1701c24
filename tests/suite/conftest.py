"""The tiny study, run once, and what the tests of training and pruning build their networks from."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from suite.attempt import attempt
from suite.cells._context import silent
from suite.cells._datasets import training_splits
from suite.network import ModelSpec
from suite.plan import Cell, Plan, make_plan
from suite.problem import Problem
from suite.pruning.contract import Search
from suite.record import Record
from suite.store import Store
from suite.study import Recipe, read_study

SPEC = ModelSpec(name="mlp", options={"hidden": [8]}, version=1, input_shape=(6,), num_classes=3)


@dataclass(frozen=True)
class Committed:
    """A study whose cells are all committed."""

    plan: Plan
    store: Store

    def cells(self, kind: str, **config: Any) -> list[Cell]:
        """Return the cells of a kind with these values in their configuration."""
        found = [cell for cell in self.plan.cells if cell.id.kind == kind]
        return [cell for cell in found if all(cell.config[key] == value for key, value in config.items())]

    def record(self, cell: Cell) -> Record:
        return self.store.load(cell.id)


def run_all(plan: Plan, folder: Path) -> Committed:
    store = Store(folder)
    store.prepare()
    for cell in plan.cells:
        outcome = attempt(cell, folder)
        assert outcome.status in ("done", "cached"), f"{cell.title}: {outcome.message}"
    return Committed(plan, store)


@pytest.fixture(scope="session")
def committed(tmp_path_factory: pytest.TempPathFactory, write_tiny_study: Callable[[Path], Path]) -> Committed:
    """The whole tiny study, every cell committed. Read it, never write to its folder."""
    study = write_tiny_study(tmp_path_factory.mktemp("study"))
    return run_all(make_plan(*read_study(str(study))), tmp_path_factory.mktemp("committed"))


@pytest.fixture(autouse=True)
def untouched_global_generator() -> Iterator[None]:
    """Fail every test whose code draws from, or seeds, torch's global generator."""
    before = torch.get_rng_state()
    yield
    assert torch.equal(torch.get_rng_state(), before), "the global generator was used"


@pytest.fixture
def recipe() -> Callable[..., Recipe]:
    """Return a function that makes recipes; what it is not told is plain SGD at a constant rate."""

    def make(**changes: Any) -> Recipe:
        plain: dict[str, Any] = {
            "epochs": 2,
            "batch_size": 32,
            "learning_rate": 0.1,
            "momentum": 0.0,
            "schedule": "constant",
        }
        return Recipe(**(plain | changes))

    return make


@pytest.fixture
def make_search(tiny_data: Path, recipe: Callable[..., Recipe]) -> Callable[..., Search]:
    """Return a function that makes what a method is given, with random tensors for trained ones."""

    def make(num_keep: int = 20, *, seed: int = 0, epochs: int = 3, **changes: Any) -> Search:
        problem = Problem.of(
            SPEC, training_splits(tiny_data, "cpu"), initialisation="signed_constant", seed=seed, device="cpu"
        )
        draw = torch.Generator().manual_seed(7)

        def trained() -> dict[str, torch.Tensor]:
            return {name: torch.randn(value.shape, generator=draw) for name, value in problem.state().items()}

        plain = recipe(epochs=epochs)
        values: dict[str, Any] = {
            "problem": problem,
            "num_keep": num_keep,
            "seed": seed,
            "recipe": plain,
            "fine_tune_recipe": plain.model_copy(update={"epochs": 5}),
            "initial": problem.state(),
            "dense": trained(),
            "rewind": trained(),
            "previous": None,
            "progress": silent,
        }
        return Search(**(values | changes))

    return make
