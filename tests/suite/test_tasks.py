"""The built-in tasks and studies against the numbers of the originals (METHODS 1.2, 2.2, 3.2, 4.2)."""

from typing import Any, NamedTuple

import pytest

from suite.extensions import available, load, settings_file
from suite.network import model_spec, num_prunable
from suite.pruning.methods import rare_gems
from suite.strict import read_toml
from suite.study import Recipe, Task, read_study
from suite.training.schedules import lasting, learning_rate, num_steps

METHODS = available("suite.pruning.methods")
BUILT_IN = available("suite.tasks", ".toml")
EIGHT = (
    "fc5-cifar10",
    "fc12-cifar10",
    "alexnet-cifar10",
    "vgg16-cifar10",
    "resnet18-cifar100",
    "resnet50-cifar100",
    "resnet18-tinyimagenet",
    "resnet50-tinyimagenet",
)
TEN = ("mlpnet-mnist", "resnet20-cifar10", *EIGHT)
FAITHFUL = [name for name in BUILT_IN if "faithful" in read_toml(settings_file("suite.tasks", name, "task"))]


class Data(NamedTuple):
    """Of a data set without its validation split."""

    shape: tuple[int, ...]
    num_classes: int
    num_train: int


DATA = {
    "digits": Data((1, 8, 8), 10, 1_257),
    "mnist": Data((1, 28, 28), 10, 55_000),
    "cifar10": Data((3, 32, 32), 10, 45_000),
    "cifar100": Data((3, 32, 32), 100, 45_000),
    "tinyimagenet": Data((3, 64, 64), 200, 90_000),
}
NUM_WEIGHTS = {
    "mlp-digits": 4_464,
    "mlpnet-mnist": 32_360,
    "resnet20-cifar10": 268_336,
    "fc5-cifar10": 3_883_000,
    "fc12-cifar10": 7_263_000,
    "alexnet-cifar10": 46_778_400,
    "vgg16-cifar10": 14_715_584,
    "resnet18-cifar100": 11_210_432,
    "resnet50-cifar100": 23_652_032,
    "resnet18-tinyimagenet": 11_269_312,
    "resnet50-tinyimagenet": 23_864_512,
}


def task(name: str) -> Task:
    _, tasks = read_study("quickstart", [f"tasks=['{name}']"])
    return tasks[name.replace(":", "-")]


def all_tasks() -> list[str]:
    return [*BUILT_IN, *(f"{name}:faithful" for name in FAITHFUL)]


@pytest.mark.parametrize("name", all_tasks())
def test_a_task_is_read_named_by_its_file_and_described(name: str) -> None:
    found = task(name)
    assert found.name == name.replace(":", "-")
    assert found.description
    assert len(found.description) < 90
    assert "\n" not in found.description


@pytest.mark.parametrize("name", all_tasks())
def test_every_method_has_a_recipe_and_options(name: str) -> None:
    found = task(name)
    data = DATA[found.data]
    for method in METHODS:
        recipe = found.recipe(method)
        options = load("suite.pruning.methods", method, "method").Options(**found.options.get(method, {}))
        total = num_steps(recipe, data.num_train)
        assert all(milestone < recipe.epochs for milestone in recipe.milestones)
        assert recipe.warmup_epochs < recipe.epochs
        assert all(learning_rate(recipe, step, total) >= 0 for step in range(0, total, total // 50))
        if method == "imp":  # behind the warm-up, within the training
            assert recipe.warmup_epochs * total / recipe.epochs < options.rewind_step < total
        if method == "rare_gems":
            assert recipe.initialisation == "signed_constant"
            assert options.freeze_period < recipe.epochs


@pytest.mark.parametrize("name", all_tasks())
def test_the_network_takes_the_data_and_has_its_weights(name: str) -> None:
    found = task(name)
    data = DATA[found.data]
    spec = model_spec(found.model, found.model_options, data.shape, data.num_classes)
    assert num_prunable(spec) == NUM_WEIGHTS[name.removesuffix(":faithful")]


@pytest.mark.parametrize("name", TEN)
def test_photographs_are_augmented_and_digits_are_not(name: str) -> None:
    found = task(name)
    expected = "none" if found.data == "mnist" else "crop_flip"
    assert {found.recipe(method).augmentation for method in METHODS} == {expected}


LOMP: dict[str, dict[str, Any]] = {  # METHODS 1.2
    "fc5-cifar10": {"learning_rate": 0.01, "warmup_epochs": 0, "l1": 5e-5},
    "fc12-cifar10": {"learning_rate": 0.01, "warmup_epochs": 0, "l1": 5e-5},
    "alexnet-cifar10": {"learning_rate": 0.01, "warmup_epochs": 5, "l1": 3e-5},
    "vgg16-cifar10": {"learning_rate": 0.01, "warmup_epochs": 5, "l1": 1e-4},
    "resnet18-cifar100": {"learning_rate": 0.1, "warmup_epochs": 5, "l1": 5e-5},
    "resnet50-cifar100": {"learning_rate": 0.1, "warmup_epochs": 5, "l1": 2e-5},
}


@pytest.mark.parametrize("name", LOMP)
def test_lomp_has_the_numbers_of_its_configurations(name: str) -> None:
    common = {"epochs": 200, "momentum": 0.9, "weight_decay": 0.0, "initialisation": "kaiming_normal"}
    for found, batch_size, scope in ((task(name), 128, "prunable"), (task(f"{name}:faithful"), None, "all")):
        values = found.recipe("lomp").model_dump()
        expected = common | LOMP[name] | {"l1_scope": scope} | ({"batch_size": batch_size} if batch_size else {})
        assert {key: values[key] for key in expected} == expected


@pytest.mark.parametrize("name", LOMP)
def test_lomp_s_rate_falls_as_declared_by_default_and_as_its_code_runs_if_faithful(name: str) -> None:
    careful, faithful = task(name).recipe("lomp"), task(f"{name}:faithful").recipe("lomp")
    assert last_rate(careful) < 0.2 * careful.learning_rate
    if name.startswith("resnet"):
        assert faithful.schedule == "cosine_per_step"
        assert last_rate(faithful) < 1e-4 * faithful.learning_rate
    else:
        assert (faithful.schedule, last_rate(faithful)) == ("constant", faithful.learning_rate)


def last_rate(recipe: Recipe) -> float:
    total = num_steps(recipe, 45_000)
    return learning_rate(recipe, total - 1, total)


IMP: dict[str, tuple[int, float, float, int, int]] = {  # epochs, rate, decay, batch, rewind step: METHODS 2.2
    "resnet20-cifar10": (160, 0.1, 1e-4, 128, 1000),
    "vgg16-cifar10": (200, 0.1, 1e-4, 128, 2000),
    "resnet18-tinyimagenet": (200, 0.2, 1e-4, 256, 1000),
    "resnet50-tinyimagenet": (150, 0.1, 5e-4, 256, 1000),
}
MILESTONES = {150: (80, 120), 160: (80, 120), 200: (100, 150)}


@pytest.mark.parametrize("name", IMP)
def test_imp_and_smart_ratio_have_the_numbers_of_their_configurations(name: str) -> None:
    found = task(name)
    epochs, rate, decay, batch_size, rewind_step = IMP[name]
    for recipe in (found.recipe("imp"), found.recipe("smart_ratio")):
        assert (recipe.epochs, recipe.learning_rate, recipe.weight_decay) == (epochs, rate, decay)
        assert (recipe.batch_size, recipe.milestones, recipe.gamma) == (batch_size, MILESTONES[epochs], 0.1)
        assert recipe.nesterov == name.startswith("resnet50")
    assert found.options["imp"] == {"rewind_step": rewind_step}


@pytest.mark.parametrize("name", all_tasks())
def test_smart_ratio_has_the_law_of_its_network(name: str) -> None:
    found = task(name)
    options = load("suite.pruning.methods", "smart_ratio", "method").Options(**found.options.get("smart_ratio", {}))
    assert options.law == ("vgg" if found.model.startswith("vgg") else "resnet")


RARE_GEMS: dict[str, tuple[int, str, float, int, float, float, int]] = {
    # period, optimiser, rate, epochs, penalty, rate of the training, batch: METHODS 3.2
    "resnet20-cifar10": (5, "sgd", 0.1, 150, 3e-5, 0.01, 128),
    "vgg16-cifar10": (5, "adam", 0.01, 200, 1e-6, 0.05, 128),
    "resnet18-tinyimagenet": (5, "adam", 0.001, 200, 5e-6, 0.1, 256),
    "resnet50-tinyimagenet": (5, "adam", 0.01, 150, 1e-6, 0.1, 128),
}


@pytest.mark.parametrize("name", RARE_GEMS)
def test_rare_gems_has_the_numbers_of_its_configurations(name: str) -> None:
    found = task(name)
    recipe, options = found.recipe("rare_gems"), found.options["rare_gems"]
    period, optimiser, rate, epochs, penalty, training_rate, batch_size = RARE_GEMS[name]
    assert (options["freeze_period"], options["score_optimiser"], options["score_learning_rate"]) == (
        period,
        optimiser,
        rate,
    )
    assert (options["score_penalty"], options.get("search_epochs")) == (penalty, None)  # as long as the training
    assert (recipe.epochs, recipe.learning_rate, recipe.batch_size) == (epochs, training_rate, batch_size)
    assert (recipe.weight_decay, recipe.milestones) == (1e-4, MILESTONES[epochs])
    assert recipe.nesterov == name.startswith("resnet50")


@pytest.mark.parametrize("name", all_tasks())
def test_scores_are_searched_with_momentum_or_by_adam(name: str) -> None:
    found = task(name)
    options = rare_gems.Options(**found.options.get("rare_gems", {}))
    search = rare_gems.trainings(found.recipe("rare_gems"), found.training, options)[0]
    assert search.is_search
    assert search.recipe.optimiser == options.score_optimiser
    assert search.recipe.optimiser == "adam" or search.recipe.momentum == 0.9


def test_the_built_in_studies_name_the_tasks() -> None:
    limits, tasks = read_study("paper-limits")
    assert tuple(tasks) == limits.tasks == EIGHT
    assert limits.analyses == ("spectrum", "limit", "faithful_limit", "row_norms", "sweep")
    baselines, tasks = read_study("paper-baselines")
    assert tuple(tasks) == baselines.tasks == TEN
    assert sorted(baselines.methods) == METHODS
    assert len(baselines.seeds) >= 3
    assert {0.8, 0.9, 0.95, 0.98, 0.9856, 0.995} == set(baselines.sparsities)


def test_the_rate_of_the_limits_fine_tuning_falls() -> None:
    limits, tasks = read_study("paper-limits")
    epochs = limits.options["limit"]["fine_tune_epochs"]
    for found in tasks.values():
        recipe = lasting(found.training, epochs)
        total = num_steps(recipe, DATA[found.data].num_train)
        rates = [learning_rate(recipe, step, total) for step in range(total)]
        assert max(rates) == rates[0] == found.training.learning_rate
        assert rates[-1] < 0.2 * rates[0]


def test_every_faithful_task_of_the_eight_is_told_apart() -> None:
    assert set(FAITHFUL) == {*EIGHT, "resnet20-cifar10"}
    for name in FAITHFUL:
        plain, faithful = task(name), task(f"{name}:faithful")
        different = {key for key in Task.model_fields if getattr(plain, key) != getattr(faithful, key)}
        assert "name" in different
        assert different & {"model_options", "recipes"}
