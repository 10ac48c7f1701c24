"""What a study asks for that this machine cannot give, found before a local launcher makes anything."""

import torch

from suite.cells._trains import trains_with
from suite.environment import best_device
from suite.errors import UserError
from suite.extensions import load
from suite.plan import Cell, Plan
from suite.ranks import check_gpus
from suite.store import Store
from suite.study import Recipe
from suite.training.arithmetic import Arithmetic

MOST_WORKERS = 16  # per processor: each is a process, with a torch of its own
MOST_THREADS = 4  # per processor: more wait for one another, and take hours for seconds


def check_workers(workers: int | None, num_processors: int) -> None:
    """Refuse more cells at a time than this machine can hold.

    Raises:
        UserError: there are more than MOST_WORKERS per processor.
    """
    most = MOST_WORKERS * num_processors
    if workers is not None and workers > most:
        raise UserError(
            f"--workers {workers} is too much for {_processors(num_processors)}. Expected: at most {most}, "
            f"{MOST_WORKERS} for each."
        )


def check_this_machine(plan: Plan, store: Store, num_processors: int) -> None:
    """Refuse a plan of which a cell that is not committed would fail here by what it asks of the machine.

    Args:
        plan: of a study that is to run here.
        store: of its folder, there or not.
        num_processors: that this process may use.

    Raises:
        UserError: it asks for a precision or a compiler that is not here, for more GPUs than there are, or for more
            than MOST_THREADS threads per processor.
    """
    device, checked = torch.device(best_device()), set[str]()
    for cell in plan.cells:
        if store.is_committed(cell.id):
            continue
        check_gpus(cell)
        _check_threads(cell, num_processors)
        for recipe in _recipes(cell):
            if (text := recipe.model_dump_json()) not in checked:
                checked.add(text)
                _check_recipe(cell, recipe, device)


def _recipes(cell: Cell) -> list[Recipe]:
    config = load("suite.cells", cell.id.kind, "kind of cell").Config.model_validate(cell.config, strict=False)
    return trains_with(cell.id.kind, config)


def _check_recipe(cell: Cell, recipe: Recipe, device: torch.device) -> None:
    try:
        Arithmetic.of(recipe, device)
    except UserError as error:
        raise UserError(f"task {cell.task}: {error}") from error


def _check_threads(cell: Cell, num_processors: int) -> None:
    most = MOST_THREADS * num_processors
    if cell.threads > most:
        raise UserError(
            f"task {cell.task}: threads = {cell.threads} is too much for {_processors(num_processors)}. Expected: at "
            f"most {most}, {MOST_THREADS} for each; set threads = {num_processors}, or run where there are more."
        )


def _processors(count: int) -> str:
    return f"{count} processor{'s' * (count > 1)}"
