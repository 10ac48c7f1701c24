from dataclasses import replace
from pathlib import Path

import pytest

from data.hdf5 import FileRefused
from suite.datasets import Located, located_or_expected
from suite.errors import UserError
from suite.plan import Plan
from suite.planner import kept_count, make_plan
from suite.study import Task, read_study

TOTAL = 72  # prunable weights of the tiny study: 6 * 8 + 8 * 3


def planned(study: Path | str, *overrides: str) -> Plan:
    return make_plan(*read_study(str(study), overrides))


def refused(study: Path, *overrides: str, error: type[ValueError] = UserError) -> str:
    with pytest.raises(error) as caught:
        planned(study, *overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("methods=['impp']", "No method named 'impp'. Did you mean 'imp'? Known: dense, imp, lomp, "),
        (
            "analyses=['spectrm']",
            "No analysis named 'spectrm'. Did you mean 'spectrum'? Known: dense_hessian, faithful_limit, ",
        ),
        ("analyses=['prune']", "No analysis named 'prune'. "),
        ("model='mpl'", "No model named 'mpl'. Did you mean 'mlp'? Known: "),
        ("model_options.hiden=[3]", "model_options of mlp: unknown key 'hiden'. Did you mean 'hidden'? Known: hidden."),
        ("model_options.hidden=[0]", "model_options of mlp: hidden.0 = 0: Input should be greater than or equal to 1."),
        (
            "training.augmentation='crop_flip'",
            "task tiny: training.augmentation = 'crop_flip' with inputs of shape (6,). Expected: images (channels, ",
        ),
        ("options.imp.rewindstep=3", "options.imp: unknown key 'rewindstep'. Did you mean 'rewind_step'? Known: "),
        ("options.imp.fraction_per_round=1.0", "options.imp: fraction_per_round = 1.0: Input should be less than 1."),
        (
            "options.spectrum.num_probes=0",
            "options.spectrum: num_probes = 0: Input should be greater than or equal to 1",
        ),
        (
            "options.rare_gem.epochs=3",
            "No method or analysis of this study named 'rare_gem'. Did you mean 'rare_gems'?",
        ),
        ("options.prune.x=3", "No method or analysis of this study named 'prune'. "),
        ("options.limit.network='lmp'", "No method named 'lmp'. Did you mean 'lomp'? Known: "),
        (
            "options.imp.rewind_step=15",
            "rewind_step = 15 is past the end of training on task tiny. Expected: below its 15 steps. "
            "Lower options.imp.rewind_step, or train for more epochs.",
        ),
        (
            "options={}",
            "rewind_step = 100 is past the end of training on task tiny. Expected: below its 15 steps. "
            "It is the default of imp: set options.imp.rewind_step, or train for more epochs.",
        ),
        (
            "sparsities=[0.5, 0.501]",
            "sparsities 0.5 and 0.501 both keep 36 of the 72 weights of task tiny. Leave one out.",
        ),
        (
            "sparsities=[0.999]",
            "sparsity 0.999 keeps none of 72 weights. Expected: at least one is kept.",
        ),
        (
            "options.dense_hessian.max_dim=71",
            "The analysis dense_hessian of task tiny needs a 72 x 72 matrix. Expected: at most 71 weights "
            "(options.dense_hessian.max_dim). Leave it out: spectrum needs no matrix.",
        ),
    ],
)
def test_what_cannot_be_planned(tiny_study: Path, override: str, message: str) -> None:
    assert refused(tiny_study, override).startswith(message)


def test_options_of_a_method_that_the_study_does_not_name(tiny_study: Path) -> None:
    message = refused(tiny_study, "methods=['lomp']")
    assert message.startswith("No method or analysis of this study named 'imp'. ")


def test_a_data_set_that_is_not_there(tiny_study: Path) -> None:
    message = refused(tiny_study, "data='digit'")
    assert message.startswith("No data set named 'digit'. Did you mean 'digits'? ")
    assert message.endswith("Or give the path of an .h5 file.")
    assert "/none.h5 does not exist" in refused(tiny_study, "data='none.h5'", error=FileRefused)


def test_a_user_s_model_by_module_and_function(
    tiny_study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "planned_net.py").write_text(
        "from torch import nn\nVERSION = 1\n"
        "def build(width=4):\n    return nn.Sequential(nn.Linear(6, width), nn.Linear(width, 3))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    plan = planned(tiny_study, "model='planned_net:build'", "model_options={}", "sparsities=[0.5]")
    assert {cell.config["num_prunable"] for cell in plan.cells if cell.id.kind == "prune"} == {36}
    wider = planned(tiny_study, "model='planned_net:build'", "model_options={width=5}", "sparsities=[0.5]")
    assert {cell.config["num_prunable"] for cell in wider.cells if cell.id.kind == "prune"} == {45}
    assert "planned_net has no 'buld'. Did you mean 'build'?" in refused(tiny_study, "model='planned_net:buld'")
    assert "there is no module 'no_such_net'" in refused(tiny_study, "model='no_such_net:f'")


def test_every_cell_stands_after_its_inputs_and_once(tiny_study: Path) -> None:
    plan = planned(tiny_study, "seeds=[0, 1]")
    seen: set[str] = set()
    for cell in plan.cells:
        assert {cell_id.key for cell_id in cell.inputs.values()} <= seen
        assert cell.id.key not in seen
        seen.add(cell.id.key)
    assert {row.cell.key for row in plan.rows} <= seen


def test_the_cells_of_the_tiny_study_by_hand(tiny_study: Path) -> None:
    plan = planned(tiny_study)
    kinds = [cell.id.kind for cell in plan.cells]
    # Dense: the plain recipe (shared by dense, imp, smart_ratio and random), imp's to step 3, lomp's, rare_gems'.
    assert kinds.count("dense") == 4
    # 72 -> 43 -> 25 -> 15: imp needs 43, 36 and 43 (shared), 25, 18; lomp 2 * 2; dense 1; the other three 2 each.
    assert kinds.count("prune") == 4 + 4 + 1 + 6
    assert [kinds.count(kind) for kind in ("spectrum", "limit", "dense_hessian")] == [1, 1, 1]
    imp = [row for row in plan.rows if row.fields.get("method") == "imp"]
    assert [(row.fields["sparsity"], row.fields["requested"]) for row in imp] == [
        (1 - 43 / 72, False),
        (0.5, True),
        (1 - 25 / 72, False),
        (0.75, True),
    ]


@pytest.mark.parametrize("analysis", ["spectrum", "limit", "faithful_limit", "masked_limit", "row_norms", "sweep"])
def test_an_analysis_looks_at_lomp_s_dense_network_unless_told_otherwise(analysis: str, tiny_study: Path) -> None:
    def l1_of(*more: str) -> float:
        only = ("methods=['random']", f"analyses=['{analysis}']", "options={}", *more)
        plan = planned(tiny_study, *only)
        (dense,) = {cell.inputs["dense"].key for cell in plan.cells if cell.id.kind == analysis}
        (penalty,) = [cell.config["recipe"]["l1"] for cell in plan.cells if cell.id.key == dense]
        return float(penalty)

    assert l1_of() > 0
    assert l1_of(f"options.{analysis}.network='imp'") == 0


def test_methods_with_equal_recipes_share_their_dense_network(tiny_study: Path) -> None:
    plan = planned(tiny_study)
    dense = {cell.config["method"]: cell.inputs["dense"] for cell in plan.cells if cell.id.kind == "prune"}
    assert dense["imp"] == dense["random"] == dense["smart_ratio"] == dense["dense"]
    assert len({dense["imp"], dense["lomp"], dense["rare_gems"]}) == 3


def test_many_small_rounds_are_planned(tiny_study: Path) -> None:
    plan = planned(tiny_study, "options.imp.fraction_per_round=1e-6", "sparsities=[0.75]")
    kept = [cell.config["num_keep"] for cell in plan.cells if cell.config.get("method") == "imp"]
    assert kept == list(range(71, 17, -1))  # at least one weight goes in every round


def test_a_thousand_rounds_are_planned(tiny_study: Path) -> None:
    overrides = ["model_options.hidden=[200]", "options.imp.fraction_per_round=1e-6", "sparsities=[0.6]", "analyses=[]"]
    plan = planned(tiny_study, *overrides)
    assert sum(cell.config.get("method") == "imp" for cell in plan.cells) == 0.6 * 1800


@pytest.mark.parametrize(
    ("num_weights", "sparsity", "kept"),
    [
        (268_336, 0.9856, 3_864),
        (268_336, 0.9, 26_834),
        (268_336, 0.95, 13_417),
        (268_336, 0.98, 5_367),
        (268_336, 0.995, 1_342),
        (10, 0.25, 8),  # 7.5 to even
        (10, 0.35, 6),  # 6.5 to even; 1 - 0.35 is not 0.65 in binary
        (1_000_000_000, 0.9, 100_000_000),
        (3, 0.0, 3),
        (100_000, 1e-05, 99_999),
    ],
)
def test_kept_counts_are_exact_decimals_rounded_half_to_even(num_weights: int, sparsity: float, kept: int) -> None:
    assert kept_count(num_weights, sparsity) == kept


def test_a_large_plan_has_every_cell_once(tiny_study: Path) -> None:
    keys = [cell.id.key for cell in planned(tiny_study, f"seeds={list(range(60))}").cells]
    assert len(keys) == len(set(keys)) == 60 * 22


def test_the_limits_fine_tune_by_the_whole_schedule_in_fewer_epochs(tiny_study: Path) -> None:
    schedule = ("training.epochs=200", "training.schedule='step'", "training.milestones=[60, 120, 160]")
    more = ("training.warmup_epochs=5", "training.weight_decay=0.1", "options.limit.fine_tune_epochs=5")
    (cell,) = [cell for cell in planned(tiny_study, *schedule, *more).cells if cell.id.kind == "limit"]
    recipe = cell.config["fine_tune_recipe"]
    assert (recipe["epochs"], recipe["schedule"], list(recipe["milestones"])) == (5, "step", [2, 3, 4])
    assert (recipe["warmup_epochs"], recipe["weight_decay"], recipe["l1"]) == (0, 0.0, 0.0)


@pytest.mark.parametrize("analysis", ["limit", "masked_limit", "faithful_limit", "dense_hessian", "spectrum"])
def test_a_loss_tolerance_that_will_not_be_is_refused_before_any_training(tiny_study: Path, analysis: str) -> None:
    few = {"input_shape": [6], "num_classes": 3, "num_train": 128, "num_validation": 20, "num_test": 20}
    options = "{limit={tolerance=0.04}}" if analysis == "spectrum" else "{}"
    chosen = [f"analyses=['{analysis}']", "methods=[]", f"options={options}", "data=synthetic"]

    def plan(num_train: int, *more: str) -> None:
        values = ", ".join(f"{name}={value}" for name, value in (few | {"num_train": num_train}).items())
        study, tasks = read_study(str(tiny_study), [*chosen, f"data_options={{{values}}}", *more])
        make_plan(study, tasks, lambda task: located_or_expected(task.data, task.data_options))

    plan(129)
    with pytest.raises(UserError) as error:
        plan(128)
    assert str(error.value).startswith("The 128 training examples of task tiny make one batch of 128; its loss has no ")
    assert str(error.value).endswith("Give loss_tolerance_nats under [options.limit].")
    given = "loss_tolerance_nats=0.1" + (", tolerance=0.04" if analysis == "spectrum" else "")
    plan(128, f"options.limit={{{given}}}")


def test_steps_that_a_part_of_a_published_data_set_does_not_reach_are_told_with_its_size(tiny_study: Path) -> None:
    settings = ['data="mnist"', "analyses=[]", "options={imp={rewind_step=15}}", 'methods=["imp"]']
    study, tasks = read_study(str(tiny_study), settings)

    def find(task: Task) -> Located:
        return replace(located_or_expected(task.data), num_train=160)

    with pytest.raises(UserError) as caught:
        make_plan(study, tasks, find)
    num_published = located_or_expected("mnist").num_train
    assert str(caught.value).endswith(
        "Lower options.imp.rewind_step, or train for more epochs. (With the published mnist there are "
        f"{num_published} training examples, here 160.)"
    )
