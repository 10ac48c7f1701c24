"""Everything a user can write wrong in a study or a task: one line with the value, the rule and the repair."""

import re
from pathlib import Path

import pytest

from suite.errors import UserError
from suite.study import Recipe, Study, read_study


def refused(study: Path | str, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        read_study(str(study), overrides)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith((".", "?", ")"))
    return message


def test_a_built_in_study_is_read_with_its_tasks() -> None:
    study, tasks = read_study("quickstart")
    assert study.name == "quickstart"
    assert list(tasks) == ["mlp-digits"]
    assert tasks["mlp-digits"].training.epochs == 100


def test_a_study_of_a_path_finds_its_task_beside_it(tiny_study: Path, tiny_data: Path) -> None:
    study, tasks = read_study(str(tiny_study))
    assert study.seeds == (0,)
    assert list(tasks) == ["tiny"]
    assert tasks["tiny"].data == str(tiny_data)


def test_data_by_a_relative_path_lies_beside_the_task(tiny_study: Path) -> None:
    task_file = tiny_study.parent / "task.toml"
    task_file.write_text(re.sub(r"data = .*", "data = 'clouds.h5'", task_file.read_text()))
    _, tasks = read_study(str(tiny_study))
    assert tasks["tiny"].data == str(tiny_study.parent / "clouds.h5")


def test_unknown_names_are_answered_with_the_nearest() -> None:
    assert refused("quickstrat").startswith("No study named 'quickstrat'. Did you mean 'quickstart'? Known: ")
    message = refused("quickstart", "tasks=['mlp-digit']")
    assert message.startswith("No task named 'mlp-digit'. Did you mean 'mlp-digits'? Known: ")
    assert message.endswith("(or give the path of a .toml file; built-in: suite/tasks)")


@pytest.mark.parametrize(
    ("override", "value", "rule"),
    [
        ("sparsities=[95]", "sparsity 95 is not", "a fraction removed in [0, 1); did you mean 0.95?"),
        ("sparsities=[0.5, 1.0]", "sparsity 1 is not", "a fraction removed in [0, 1)."),
        ("sparsities=[-0.1]", "sparsity -0.1 is not", "a fraction removed in [0, 1)."),
        ("sparsities=[nan]", "sparsities.0 = nan", "finite number"),
        ("sparsities=['0.9']", "sparsities.0 = '0.9'", "valid number"),
        ("sparsities=[true]", "sparsities.0 = True", "valid number"),
        ("sparsities=[0.5, 0.5]", "0.5 stands more than once", "each value of an axis stands once."),
        ("sparsities=[]", "the grid is empty", "methods need sparsities, for example sparsities = [0.8, 0.9]."),
        ("seeds=[0, 1, 1]", "1 stands more than once", "each value of an axis stands once."),
        ("seeds=[-1]", "seeds.0 = -1", "greater than or equal to 0"),
        ("seeds=[9223372036854775808]", "seeds.0 = 9223372036854775808", "less than"),
        ("seeds=[0.0]", "seeds.0 = 0.0", "valid integer"),
        ("seeds=0", "seeds = 0", "valid array"),
        ("seeds=[]", "seeds = []", "at least 1 item"),
        ("tasks=['/a.toml', '/a.toml']", "'/a.toml' stands more than once", "each value of an axis stands once."),
        ("name='a b'", "name = 'a b'", "pattern"),
        ("name='../up'", "name = '../up'", "pattern"),
        ("options=3", "options = 3", "object"),
        ("seeds=[2026-01-01]", "date", "Expected: text, numbers, booleans, lists and tables."),
    ],
)
def test_a_bad_value_of_the_study(tiny_study: Path, override: str, value: str, rule: str) -> None:
    message = refused(tiny_study, override)
    assert message.removeprefix("--set on ").startswith(f"{tiny_study}: ")
    assert value in message
    assert rule in message


@pytest.mark.parametrize(
    ("override", "value", "rule"),
    [
        ("training.epochs=0", "training.epochs = 0", "greater than or equal to 1"),
        ("training.epochs=1.5", "training.epochs = 1.5", "valid integer"),
        ("training.learning_rate=0.0", "training.learning_rate = 0.0", "greater than 0"),
        ("training.learning_rate=inf", "training.learning_rate = inf", "finite number"),
        ("training.momentum=1.0", "training.momentum = 1.0", "less than 1"),
        ("training.l1=-1e-3", "training.l1 = -0.001", "greater than or equal to 0"),
        (
            "training.schedule='cosin'",
            "training.schedule = 'cosin'",
            "'constant', 'cosine', 'step' or 'cosine_per_step'",
        ),
        ("training.schedule='step'", "schedule = 'step' with milestones = []", "milestones (epochs) are needed by"),
        ("training.milestones=[3]", "schedule = 'cosine' with milestones = [3]", "by no other schedule."),
        ("threads=0", "threads = 0", "greater than or equal to 1"),
        ("training=3", "training = 3", "object"),
    ],
)
def test_a_bad_value_of_a_task(tiny_study: Path, override: str, value: str, rule: str) -> None:
    message = refused(tiny_study, override)
    assert message.removeprefix("--set on ").startswith("task task.toml: ")
    assert value in message
    assert rule in message


def test_a_bad_value_of_a_method_s_recipe(tiny_study: Path) -> None:
    message = refused(tiny_study, "recipes.lomp.momentum=2")
    assert message == "task tiny, recipes.lomp: momentum = 2: Input should be less than 1."


@pytest.mark.parametrize("milestones", [[4, 2], [2, 2]])
def test_milestones_grow(tiny_study: Path, milestones: list[int]) -> None:
    message = refused(tiny_study, "training.schedule='step'", f"training.milestones={milestones}")
    assert message == f"task task.toml: training: milestones = {milestones} must grow."


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("training.epoch=1", "unknown key 'training.epoch'. Did you mean 'epochs'? Known: augmentation, batch_size, "),
        ("recipes.lomp.l11=0.1", "unknown key 'l11'. Did you mean 'l1'? Known: augmentation, batch_size, "),
        ("recipes.lompp.l1=0.1", "No method named 'lompp'. Did you mean 'lomp'? Known: dense, "),
        (
            "methds=[]",
            "No setting named 'methds'. Did you mean 'methods'? Known: analyses, data, data_options, description",
        ),
    ],
)
def test_an_unknown_key_is_answered_with_the_nearest(tiny_study: Path, override: str, line: str) -> None:
    assert line in refused(tiny_study, override)


def test_an_unknown_key_in_the_file(tiny_study: Path) -> None:
    tiny_study.write_text(tiny_study.read_text().replace("seeds = [0]", "seeds = [0]\nsparsity = 0.9"))
    message = refused(tiny_study)
    assert f"{tiny_study}: unknown key 'sparsity'. Did you mean 'sparsities'? Known: analyses, " in message


def test_a_missing_key_is_named(tiny_study: Path) -> None:
    tiny_study.write_text(tiny_study.read_text().replace("seeds = [0]", ""))
    assert refused(tiny_study) == f"{tiny_study}: the key 'seeds' is missing. Add it."


def test_an_empty_grid(tiny_study: Path) -> None:
    message = refused(tiny_study, "methods=[]", "analyses=[]")
    assert message == f"{tiny_study}: the grid is empty: name at least one of methods, analyses."


def test_dense_alone_needs_no_sparsities(tiny_study: Path) -> None:
    study, _ = read_study(str(tiny_study), ["methods=['dense']", "sparsities=[]"])
    assert study.methods == ("dense",)


def test_two_tasks_of_one_name(tiny_study: Path) -> None:
    (tiny_study.parent / "copy.toml").write_text((tiny_study.parent / "task.toml").read_text())
    tiny_study.write_text(tiny_study.read_text().replace('["task.toml"]', '["task.toml", "copy.toml"]'))
    message = refused(tiny_study)
    assert message == f"{tiny_study}: two tasks are named 'tiny'. Give each its own name."


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("epochs", "--set 'epochs' is no KEY=VALUE. Expected: for example --set training.epochs=1."),
        ("=1", "--set '=1' is no KEY=VALUE. Expected: for example --set training.epochs=1."),
        (
            "training.epochs.x=1",
            "--set training.epochs.x: 'epochs' is a value, not a table. Name a key inside a table.",
        ),
    ],
)
def test_a_bad_form_of_set(tiny_study: Path, override: str, line: str) -> None:
    assert refused(tiny_study, override) == line


def test_set_reaches_study_tasks_and_new_tables(tiny_study: Path) -> None:
    overrides = ["seeds=[4, 5]", "training.epochs = 7", "options.lomp.fine_tune=true", "recipes.imp.l1=0.5", "name=new"]
    study, tasks = read_study(str(tiny_study), overrides)
    assert study.seeds == (4, 5)
    assert study.name == "new"  # what is not TOML is text
    assert study.options["lomp"] == {"fine_tune": True}
    assert tasks["tiny"].training.epochs == 7
    assert tasks["tiny"].recipe("imp").l1 == 0.5
    assert tasks["tiny"].recipe("imp").epochs == 7


def test_a_recipe_of_a_method_changes_only_what_it_says(tiny_study: Path) -> None:
    _, tasks = read_study(str(tiny_study))
    task = tasks["tiny"]
    assert task.recipe("lomp") == task.training.model_copy(update={"l1": 1e-3})
    assert task.recipe("random") == task.training


def test_settings_are_frozen_and_whole_numbers_are_numbers() -> None:
    study = Study.model_validate_json(
        '{"name": "a", "tasks": ["t"], "methods": ["imp"], "sparsities": [0], "seeds": [0]}'
    )
    assert study.sparsities == (0.0,)
    with pytest.raises(ValueError, match="frozen"):
        study.name = "b"  # type: ignore[misc]
    with pytest.raises(ValueError, match="frozen"):
        Recipe(epochs=1, batch_size=1, learning_rate=1.0).epochs = 2  # type: ignore[misc]


def test_paths_on_the_command_line_are_meant_from_the_working_folder(tiny_study, tiny_data, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine.h5").write_bytes(tiny_data.read_bytes())
    (elsewhere / "other.toml").write_text((tmp_path / "task.toml").read_text())
    monkeypatch.chdir(elsewhere)
    _, tasks = read_study(str(tiny_study), ["data=mine.h5", 'tasks=["other.toml"]'])
    (task,) = tasks.values()
    assert task.data == str(elsewhere / "mine.h5")


FAITHFUL_TABLE = """
[faithful.training]
learning_rate = 0.5
[faithful.recipes.lomp]
l1_scope = "all"
[faithful.options.imp]
rewind_step = 1
"""


@pytest.fixture
def faithful_study(tiny_study: Path) -> Path:
    """Return the tiny study with a table [faithful] in its task."""
    task = tiny_study.parent / "task.toml"
    task.write_text(task.read_text() + FAITHFUL_TABLE)
    return tiny_study


def test_the_faithful_variant_is_merged_over_the_task(faithful_study: Path) -> None:
    _, tasks = read_study(
        str(faithful_study),
        ["tasks=['task.toml', 'task.toml:faithful']".replace("task.toml", str(faithful_study.parent / "task.toml"))],
    )
    plain, faithful = tasks["tiny"], tasks["tiny-faithful"]
    assert faithful.training == plain.training.model_copy(update={"learning_rate": 0.5})
    assert faithful.recipes == plain.recipes | {"lomp": plain.recipes["lomp"] | {"l1_scope": "all"}}
    assert faithful.options == plain.options | {"imp": plain.options.get("imp", {}) | {"rewind_step": 1}}
    same = {"name": "tiny", "training": plain.training, "recipes": plain.recipes, "options": plain.options}
    assert faithful.model_copy(update=same) == plain


def test_a_faithful_task_of_the_command_line_is_meant_from_the_working_folder(
    faithful_study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "other.toml").write_text((tmp_path / "task.toml").read_text())
    monkeypatch.chdir(elsewhere)
    _, tasks = read_study(str(faithful_study), ['tasks=["other.toml:faithful"]'])
    assert list(tasks) == ["tiny-faithful"]


def test_an_override_comes_after_the_faithful_table(faithful_study: Path) -> None:
    overrides = [f"tasks=['{faithful_study.parent}/task.toml:faithful']", "training.learning_rate=0.25"]
    _, tasks = read_study(str(faithful_study), overrides)
    assert tasks["tiny-faithful"].training.learning_rate == 0.25


@pytest.mark.parametrize(
    ("table", "line"),
    [
        ("[faithful]\nepochs = 3", "task task.toml, faithful: unknown key 'epochs'."),
        ("[faithful]\ntraining = 3", "task task.toml, faithful: training = 3: "),
        ("faithful = 3", "task task.toml, faithful: "),
    ],
)
def test_a_bad_faithful_table_is_refused_also_where_it_is_not_asked_for(
    tiny_study: Path, table: str, line: str
) -> None:
    task = tiny_study.parent / "task.toml"
    task.write_text(f"{task.read_text()}\n{table}\n" if table.startswith("[") else f"{table}\n{task.read_text()}")
    assert refused(tiny_study).startswith(line)


def test_a_bad_value_in_a_faithful_table(tiny_study: Path) -> None:
    task = tiny_study.parent / "task.toml"
    task.write_text(task.read_text() + "\n[faithful.training]\nmomentum = 2\n")
    assert "training.momentum = 2" in refused(tiny_study, f"tasks=['{task}:faithful']")


def test_a_task_without_the_variant(tiny_study: Path) -> None:
    message = refused("quickstart", "tasks=['mlp-digits:faithful']")
    assert message == ("task mlp-digits has no table [faithful]. Name it without :faithful, or add the table.")
    message = refused("quickstart", "tasks=['mlp-digits:faithfull']")
    assert message == (
        "task 'mlp-digits:faithfull' has no variant 'faithfull'. Expected: mlp-digits, or mlp-digits:faithful."
    )


@pytest.mark.parametrize(
    ("table", "line"),
    [
        ("[options.impp]\nrewind_step = 3", "No method or analysis named 'impp'. Did you mean 'imp'? Known: "),
        ("[options.dense_hessian]\nmax_dims = 3", "task tiny, options.dense_hessian: unknown key 'max_dims'."),
        ("[options.rare_gems]\nscore_penalty = -1.0", "task tiny, options.rare_gems: score_penalty = -1.0: "),
        ("[options.spectrum]\nnum_probes = 0", "task tiny, options.spectrum: num_probes = 0: "),
    ],
)
def test_options_of_a_task_are_checked_when_it_is_read(tiny_study: Path, table: str, line: str) -> None:
    task = tiny_study.parent / "task.toml"
    task.write_text(f"{task.read_text()}\n{table}\n")
    assert refused(tiny_study).startswith(line)


def test_a_graph_of_a_gpu_and_micro_batches_exclude_each_other(tiny_study: Path) -> None:
    with pytest.raises(UserError) as error:
        read_study(str(tiny_study), ["training.compile=cuda_graphs", "training.micro_batch_size=4"])
    assert "compile = 'cuda_graphs' with micro_batch_size = 4; a graph overwrites the gradients" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["training.data_parallel=20"],
            "training: data_parallel = 20 with batch_size = 32; each process needs two examples of a batch: set "
            "data_parallel = 16 or less, or raise batch_size.",
        ),
        (
            ["training.data_parallel=2", "training.compile=cuda_graphs"],
            "training: data_parallel = 2 with compile = 'cuda_graphs'; a graph does not wait for the gradients of "
            "other processes: set compile = 'inductor', or data_parallel = 1.",
        ),
        (
            ["recipes.lomp.data_parallel=2"],
            "task tiny, recipes.lomp.data_parallel = 2, but training.data_parallel = 1. Expected: one number for a "
            "task; leave the first out.",
        ),
        (["training.data_parallel=0"], "training.data_parallel = 0: Input should be greater than or equal to 1."),
    ],
)
def test_processes_that_cannot_share_a_batch(tiny_study: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(UserError) as error:
        read_study(str(tiny_study), overrides)
    assert str(error.value).endswith(message)
