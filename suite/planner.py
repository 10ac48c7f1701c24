"""Study -> plan: the cells, their keys, and who needs whom. Everything a user can get wrong is found here."""

import hashlib
import json
from collections.abc import Callable, Mapping
from fractions import Fraction
from types import ModuleType
from typing import Any

from suite.catalogue import analyses
from suite.cells._trains import trains_with
from suite.cells.dense import Config as DenseConfig
from suite.cells.prune import Config as PruneConfig
from suite.datasets import Located, locate, published_num_train
from suite.errors import UserError, unknown
from suite.extensions import load
from suite.network import ModelSpec, model_spec, num_prunable
from suite.plan import Cell, Plan, PlannedRow
from suite.pruning.contract import method_variants, previous_num_kept, rewind_step
from suite.store import CellId
from suite.strict import Settings, validated
from suite.study import Recipe, Study, Task
from suite.training.augmentation import check_augmentation
from suite.training.data_parallel import data_parallel
from suite.training.schedules import num_steps

Finder = Callable[[Task], Located]


def make_plan(study: Study, tasks: Mapping[str, Task], find: Finder | None = None) -> Plan:
    """Expand a study into its cells.

    Args:
        study: what was asked for.
        tasks: those that it names.
        find: finds a task's data set; by default `locate`, which writes what needs no archive.

    Raises:
        UserError: an unknown method, analysis, model or option, with the nearest known name.
    """
    check_names(study)
    planner = Planner(study, find)
    for task in tasks.values():
        for seed in study.seeds:
            for method in study.methods:
                planner.add_method(task, method, seed)
            for analysis in study.analyses:
                planner.add_analysis(task, analysis, seed)
    return Plan(study, dict(tasks), tuple(planner.cells.values()), tuple(planner.rows))


def check_names(study: Study) -> None:
    """Refuse methods, analyses and tables of options that there are not.

    Raises:
        UserError: with the nearest known name.
    """
    for method in study.methods:
        load("suite.pruning.methods", method, "method")
    for analysis in study.analyses:
        if analysis not in analyses():
            raise unknown("analysis", analysis, analyses(), "an analysis is a cell that a study can name")
    for name in study.options:
        if name not in (*study.methods, *analyses()):
            raise unknown("method or analysis of this study", name, (*study.methods, *analyses()), "options.NAME")


def checked_options(study: Study, task: Task, name: str, module: ModuleType) -> Settings:
    """Return the checked options of a method or an analysis: the study's, else the task's.

    Raises:
        UserError: an unknown option, or a value that breaks a rule.
    """
    values = task.options.get(name, {}) | study.options.get(name, {})
    checked: Settings = validated(module.Options, values, f"options.{name}")
    return checked


class Planner:
    """Collects cells; asking twice for the same cell gives the same one."""

    def __init__(self, study: Study, find: Finder | None = None) -> None:
        """Start with no cells."""
        self.study = study
        self._find = find or _located
        self.cells: dict[str, Cell] = {}
        self.rows: list[PlannedRow] = []
        self._located: dict[str, tuple[Located, ModelSpec, int]] = {}
        self._reference_of: dict[str, str] = {}  # dense cell's key -> method, for the analyses' rows

    def add(self, kind: str, config: Settings, inputs: Mapping[str, Cell], task: Task, title: str) -> Cell:
        """Add one cell, or return the one with the same key."""
        values = config.model_dump(mode="json")
        input_ids = {role: cell.id for role, cell in inputs.items()}
        cell_id = CellId(kind, _key(kind, values, input_ids))
        places = {"data": str(self.network(task)[0].path)}
        processes = data_parallel(trains_with(kind, config))
        title = f"{task.name} {title}"
        cell = Cell(cell_id, values, input_ids, title, task.threads, places, processes, task.name)
        return self.cells.setdefault(cell_id.key, cell)

    def network(self, task: Task) -> tuple[Located, ModelSpec, int]:
        """Return a task's data set, its model's spec and the number of prunable weights."""
        if task.name not in self._located:
            located = self._find(task)
            spec = model_spec(task.model, task.model_options, located.input_shape, located.num_classes)
            self._located[task.name] = (located, spec, num_prunable(spec, located.input_dtype))
        return self._located[task.name]

    def dense(self, task: Task, recipe: Recipe, seed: int, stop_step: int | None = None) -> Cell:
        """Return the cell that trains the dense network with a recipe, whole or up to a step."""
        located, spec, _ = self.network(task)
        check_augmentation(recipe.augmentation, located.input_shape, f"task {task.name}: ")
        config = DenseConfig(
            model=spec, data=located.spec, threads=task.threads, recipe=recipe, seed=seed, stop_step=stop_step
        )
        until = "" if stop_step is None else f" to step {stop_step}"
        return self.add("dense", config, {}, task, f"seed {seed} dense{until}")

    def options(self, task: Task, name: str, module: ModuleType) -> Settings:
        """Return the checked options of a method or an analysis: the study's, else the task's."""
        return checked_options(self.study, task, name, module)

    def add_method(self, task: Task, method: str, seed: int) -> None:
        """Add all cells and rows of one method on one task with one seed."""
        module = load("suite.pruning.methods", method, "method")
        _, _, total = self.network(task)
        sparsities = self.study.sparsities if module.PRUNES else (0.0,)
        for variant in method_variants(module, method, self.options(task, method, module)):
            wanted: dict[int, float] = {}
            for sparsity in sparsities:
                num_keep = kept_count(total, sparsity)
                if num_keep in wanted:
                    raise UserError(
                        f"sparsities {wanted[num_keep]} and {sparsity} both keep {num_keep} of the {total} weights of "
                        f"task {task.name}. Leave one out."
                    )
                wanted[num_keep] = sparsity
            done: set[int] = set()
            for num_keep in wanted:
                for cell, kept in self._chain(task, method, variant, module, num_keep, seed):
                    if kept not in done:
                        done.add(kept)
                        self.rows.append(_prune_row(cell, task, variant, seed, kept, total, wanted.get(kept)))

    def add_analysis(self, task: Task, analysis: str, seed: int) -> None:
        """Add one analysis cell, and through its plan function the cells that it needs."""
        cell = self.analysis_cell(task, analysis, seed)
        network = self._reference_of[cell.inputs["dense"].key]
        self.rows.append(PlannedRow(cell.id, {"task": task.name, "seed": seed, "network": network}))

    def analysis_cell(self, task: Task, analysis: str, seed: int, same: Mapping[str, Any] | None = None) -> Cell:
        """Return the cell of an analysis; `same` sets options that an analysis built on it must share."""
        module = load("suite.cells", analysis, "analysis")
        options = self.options(task, analysis, module).model_copy(update=dict(same or {}))
        cell: Cell = module.plan(self, task, seed, options)
        return cell

    def reference(self, task: Task, method: str, seed: int) -> Cell:
        """Return a method's own dense reference: the task's network trained with the method's recipe."""
        load("suite.pruning.methods", method, "method")
        cell = self.dense(task, task.recipe(method), seed)
        self._reference_of[cell.id.key] = method
        return cell

    def _check_rewind(self, task: Task, method: str, step: int) -> None:
        """Refuse a step that training does not reach, and say so where it is a default that nobody wrote."""
        located = self.network(task)[0]
        total = num_steps(task.recipe(method), located.num_train)
        if step < total:
            return
        is_default = all("rewind_step" not in options.get(method, {}) for options in (task.options, self.study.options))
        lower = f"It is the default of {method}: set" if is_default else "Lower"
        published, note = published_num_train(task.data), ""
        if published not in (None, located.num_train):
            note = (
                f" (With the published {task.data} there are {published} training examples, here {located.num_train}.)"
            )
        raise UserError(
            f"rewind_step = {step} is past the end of training on task {task.name}. Expected: below its {total} steps. "
            f"{lower} options.{method}.rewind_step, or train for more epochs.{note}"
        )

    def _chain(
        self, task: Task, method: str, variant: Any, module: ModuleType, num_keep: int, seed: int
    ) -> list[tuple[Cell, int]]:
        """Return the cells that lead to num_keep kept weights, the first round first."""
        located, spec, total = self.network(task)
        recipe = task.recipe(method)
        inputs = {"dense": self.dense(task, recipe, seed)}
        if step := rewind_step(module, variant.options):
            self._check_rewind(task, method, step)
            inputs["rewind"] = self.dense(task, recipe, seed, stop_step=step)
        rounds = [num_keep]
        while (previous := previous_num_kept(module, variant.options, total, rounds[0])) is not None:
            rounds.insert(0, previous)
        common = PruneConfig(
            model=spec,
            data=located.spec,
            threads=task.threads,
            recipe=recipe,
            fine_tune_recipe=task.training,
            seed=seed,
            method=method,
            method_version=module.VERSION,
            options=variant.options.model_dump(mode="json"),
            num_prunable=total,
            num_keep=num_keep,
        )
        chain: list[tuple[Cell, int]] = []
        for kept in rounds:
            title = f"seed {seed} {variant.row} keeping {kept}"
            cell = self.add("prune", common.model_copy(update={"num_keep": kept}), inputs, task, title)
            chain.append((cell, kept))
            inputs["previous"] = cell
        return chain


def _located(task: Task) -> Located:
    return locate(task.data, task.data_options)


def kept_count(num_weights: int, sparsity: float) -> int:
    """Return round-half-even((1 - sparsity) * num_weights), exact: sparsity is taken as the decimal it was written as.

    Raises:
        UserError: nothing would be kept.
    """
    count = round((1 - Fraction(repr(sparsity))) * num_weights)
    if count < 1:
        raise UserError(f"sparsity {sparsity} keeps none of {num_weights} weights. Expected: at least one is kept.")
    return count


def _key(kind: str, config: Mapping[str, Any], inputs: Mapping[str, CellId]) -> str:
    """Return sha256 over canonical JSON of everything that the result depends on."""
    content = {
        "kind": kind,
        "version": load("suite.cells", kind, "kind of cell").VERSION,
        "config": config,
        "inputs": {role: cell.key for role, cell in inputs.items()},
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _prune_row(
    cell: Cell, task: Task, variant: Any, seed: int, num_keep: int, total: int, sparsity: float | None
) -> PlannedRow:
    fields = {
        "task": task.name,
        "method": variant.row,
        "label": variant.label,
        "seed": seed,
        "sparsity": 1 - num_keep / total if sparsity is None else sparsity,
        "requested": sparsity is not None,
    }
    return PlannedRow(cell.id, fields)
