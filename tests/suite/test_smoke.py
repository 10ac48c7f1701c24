"""A small study has every cell of the study, needs none of its data, and runs to the report."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import data.digits
from data import write_dataset
from suite.attempt import attempt
from suite.datasets import locate, stand_in
from suite.errors import UserError
from suite.extensions import available, load
from suite.planner import analyses, make_plan
from suite.results import collect
from suite.smoke import MAX_EXAMPLES, smoke
from suite.store import Store
from suite.study import Study, Task, read_study

METHODS = ("lomp", "imp", "rare_gems", "smart_ratio")
TRAINING = {"epochs": 90, "batch_size": 128, "learning_rate": 0.1}


def task(**values: Any) -> Task:
    fields = {"name": "small", "model": "mlp", "data": "digits", "training": TRAINING, **values}
    return Task.model_validate_json(json.dumps(fields))


def study(**values: Any) -> Study:
    fields = {"name": "grid", "tasks": ["small"], "seeds": [3, 4], "sparsities": [0.5, 0.9], "methods": ["lomp"]}
    return Study.model_validate_json(json.dumps(fields | values))


def run(chosen: Study, tasks: dict[str, Task], folder: Path) -> Path:
    small = smoke(chosen, tasks)
    plan, store = make_plan(small.study, small.tasks), Store(folder)
    store.prepare()
    for cell in plan.cells:
        outcome = attempt(cell, folder)
        assert outcome.status == "done", f"{cell.title}: {outcome.message}"
        assert store.load(cell.id).cost.get("gradient_steps", 0) <= 30
    found = collect(plan, store, "test")
    assert found.num_committed == found.num_planned
    return found.path


def test_no_data_set_of_the_study_is_touched(monkeypatch: pytest.MonkeyPatch, data_folder: Path) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("built")

    monkeypatch.setattr(data.digits, "build", refuse)
    before = set(data_folder.iterdir())
    small = smoke(study(), {"small": task()})
    assert set(data_folder.iterdir()) == before
    options = small.tasks["small"].data_options
    assert (options["input_shape"], options["num_classes"]) == ([64], 10)
    assert options["num_train"] == MAX_EXAMPLES
    make_plan(small.study, small.tasks)


def test_what_is_made_small() -> None:
    steps = TRAINING | {"schedule": "step", "milestones": [30, 60], "warmup_epochs": 5}
    tried = task(training=steps, recipes={"imp": {"epochs": 160, "milestones": [80]}})
    small = smoke(study(methods=list(METHODS), options={"imp": {"rewind_step": 500}}), {"small": tried})
    assert small.study.name == "grid-smoke"
    assert small.study.smoke_of == "grid"
    assert (small.study.seeds, small.study.sparsities, small.study.methods) == ((3,), (0.9,), METHODS)
    for method in METHODS:
        recipe = small.tasks["small"].recipe(method)
        assert (recipe.epochs, recipe.milestones, recipe.warmup_epochs, recipe.learning_rate) == (2, (1,), 1, 1e-3)
    assert small.tasks["small"].options["imp"]["rewind_step"] == 1


@pytest.mark.parametrize(("processes", "num_examples", "batch_size"), [(2, 64, 32), (20, 64, 40), (64, 128, 128)])
def test_every_process_has_its_share_of_a_small_batch(processes: int, num_examples: int, batch_size: int) -> None:
    shared = task(training=TRAINING | {"data_parallel": processes}, recipes={"lomp": {"l1": 1e-4}})
    small = smoke(study(), {"small": shared})
    found = small.tasks["small"]
    assert found.data_options["num_train"] == num_examples
    for recipe in (found.training, found.recipe("lomp")):
        assert (recipe.batch_size, recipe.data_parallel) == (batch_size, processes)
    assert {cell.processes for cell in make_plan(small.study, small.tasks).cells} == {1, processes}


@pytest.mark.parametrize(
    ("folder", "name"),
    [("suite.pruning.methods", name) for name in available("suite.pruning.methods")]
    + [("suite.cells", name) for name in analyses()],
)
def test_contract_of_what_has_an_effort(folder: str, name: str) -> None:
    module = load(folder, name, "extension")
    has_effort = any("int" in str(field.annotation) for field in module.Options.model_fields.values())
    assert not has_effort or hasattr(module, "smoke") or hasattr(module, "SMOKE_MAX_WEIGHTS")
    if hasattr(module, "smoke"):
        assert module.Options.model_validate(module.smoke(module.Options()).model_dump())


def test_every_method_and_analysis_of_a_small_network_runs(tmp_path: Path) -> None:
    tiny = task(model_options={"hidden": [8]}, data="cubist", options={"limit": {"tolerance": 0.01}})
    methods = available("suite.pruning.methods")
    small = smoke(study(methods=methods, analyses=analyses()), {"small": tiny})
    assert small.left_out == ()
    assert run(study(methods=methods, analyses=analyses()), {"small": tiny}, tmp_path).exists()


def test_what_is_too_large_is_left_out_and_said() -> None:
    found = smoke(study(analyses=["dense_hessian", "spectrum"]), {"small": task(model_options={"hidden": [48, 24]})})
    assert found.study.analyses == ("spectrum",)
    assert found.left_out == ("dense_hessian: task small has 4464 weights, and it is tried up to 2000",)
    with pytest.raises(UserError, match="study grid has nothing small enough: dense_hessian"):
        smoke(study(methods=[], analyses=["dense_hessian"]), {"small": task(model_options={"hidden": [48, 24]})})


def test_a_users_file_says_its_form(tmp_path: Path) -> None:
    split = (np.arange(12).reshape(4, 3), np.arange(4) % 3)
    write_dataset(tmp_path / "t.h5", {"train": split}, {"classes": 7, "source": "", "licence": ""})  # type: ignore[dict-item]
    form = stand_in(str(tmp_path / "t.h5"))
    assert form == {"input_shape": [3], "num_classes": 7, "kind": "tokens", "num_tokens": 12}
    assert str(locate("synthetic", form).input_dtype) == "torch.int64"


@pytest.mark.slow
@pytest.mark.parametrize("name", available("suite.tasks", ".toml"))
def test_every_built_in_task_runs_to_the_tables(name: str, tmp_path: Path) -> None:
    text = f'name = "all"\ntasks = ["{name}"]\nmethods = {list(METHODS)}\nsparsities = [0.9]\nseeds = [0]\n'
    (tmp_path / "all.toml").write_text(text + 'analyses = ["spectrum", "limit"]\n')
    assert run(*read_study(str(tmp_path / "all.toml")), tmp_path / "run").exists()
