"""What a user writes: a study (tasks x methods x sparsities x seeds, and analyses) and the tasks it names."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from suite.catalogue import analyses
from suite.errors import UserError, unknown
from suite.extensions import available, load, settings_file
from suite.overrides import Override, apply_overrides, parse_override
from suite.recipe_check import check_recipes
from suite.strict import Settings, read_toml, validated

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
FAITHFUL = "faithful"  # the variant of a task that follows its originals where the task does not
PositiveInt = Annotated[int, Field(ge=1)]
NonNegative = Annotated[float, Field(ge=0)]
Initialisation = Literal[
    "kaiming_normal",
    "signed_constant",
    "kaiming_fan_out",
    "kaiming_small_classifier",
    "kaiming_uniform_gamma",
    "kaiming_double_variance",
    "as_built",
]


class Recipe(Settings):
    """How a network is trained. Whatever is in here can change a bit of the result, and is part of a cell's key."""

    epochs: Annotated[int, Field(ge=1, le=10**6)]
    batch_size: PositiveInt
    learning_rate: Annotated[float, Field(gt=0)]
    optimiser: Literal["sgd", "adam"] = "sgd"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9  # of sgd; adam has its own, as torch sets them
    nesterov: bool = False
    weight_decay: NonNegative = 0.0  # L2: adds weight_decay * w to the gradient, as torch.optim.SGD does
    l1: NonNegative = 0.0  # adds l1 * sign(w) to the gradient; sign(0) = 0
    l1_scope: Literal["prunable", "all"] = "prunable"  # "all" also pulls biases and normalisation, as the original does
    # "cosine_per_step" is what the original LOMP does: a cosine of `epochs` steps, again and again
    schedule: Literal["constant", "cosine", "step", "cosine_per_step"] = "cosine"
    milestones: tuple[PositiveInt, ...] = ()  # epochs after which a "step" schedule multiplies the rate by gamma
    gamma: Annotated[float, Field(gt=0, lt=1)] = 0.1
    warmup_epochs: Annotated[int, Field(ge=0)] = 0
    initialisation: Initialisation = "kaiming_normal"  # each is described in suite.initialisation
    augmentation: Literal["none", "crop_flip"] = (
        "none"  # images: 4 zero pixels around, random crop, flip of every second
    )
    precision: Literal["auto", "float32", "tf32", "bfloat16"] = "auto"  # bfloat16 on GPUs that have it, else float32
    compile: Literal["none", "inductor", "cuda_graphs"] = "none"  # torch.compile; pays from some minutes of training on
    # examples that go forward and backward at once, for what does not fit into memory: their gradients add up to the
    # batch's, but batch normalisation sees each micro-batch alone
    micro_batch_size: PositiveInt | None = None
    # processes, on a GPU of their own where there are GPUs, that share each batch; batch normalisation sees the share
    # of each process alone, as torch's DistributedDataParallel has it, and sums round otherwise for another number
    data_parallel: Annotated[int, Field(ge=1, le=64)] = 1

    @model_validator(mode="after")
    def _milestones_belong_to_step(self) -> "Recipe":
        if (self.schedule == "step") != bool(self.milestones):
            raise ValueError(
                f"schedule = {self.schedule!r} with milestones = {list(self.milestones)}; "
                "milestones (epochs) are needed by schedule = 'step', and by no other schedule"
            )
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones = {list(self.milestones)} must grow")
        return self

    @model_validator(mode="after")
    def _graphs_hold_one_batch(self) -> "Recipe":
        if self.compile == "cuda_graphs" and self.micro_batch_size is not None:
            raise ValueError(
                f"compile = 'cuda_graphs' with micro_batch_size = {self.micro_batch_size}; a graph overwrites the "
                "gradients of the micro-batch before: set compile = 'inductor', or leave micro_batch_size out"
            )
        return self

    @model_validator(mode="after")
    def _every_process_has_its_share(self) -> "Recipe":
        if self.data_parallel > 1 and self.batch_size < 2 * self.data_parallel:
            raise ValueError(
                f"data_parallel = {self.data_parallel} with batch_size = {self.batch_size}; each process needs two "
                f"examples of a batch: set data_parallel = {max(1, self.batch_size // 2)} or less, or raise batch_size"
            )
        if self.data_parallel > 1 and self.compile == "cuda_graphs":
            raise ValueError(
                f"data_parallel = {self.data_parallel} with compile = 'cuda_graphs'; a graph does not wait for the "
                "gradients of other processes: set compile = 'inductor', or data_parallel = 1"
            )
        return self

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> "Recipe":
        if self.nesterov and (self.optimiser != "sgd" or self.momentum == 0):
            raise ValueError(
                f"nesterov = true with optimiser = {self.optimiser!r} and momentum = {self.momentum:g}; "
                "it is a kind of momentum: leave it out, or set optimiser = 'sgd' and momentum = 0.9"
            )
        return self


class Task(Settings):
    """Model + data set + training recipe."""

    name: Name
    description: str = ""
    model: str  # a file in suite/models, or module:function of the user's own
    model_options: dict[str, Any] = Field(default_factory=dict)
    data: str  # a file in data/, or the path of an HDF5 file in the same layout
    data_options: dict[str, Any] = Field(default_factory=dict)  # of a generated data set
    threads: Annotated[int, Field(ge=1, le=1024)] = 1  # part of the science: floating-point sums depend on it
    training: Recipe
    # per method: the keys of `training` in which its own recipe differs
    recipes: dict[str, dict[str, Any]] = Field(default_factory=dict)
    # per method: the options that belong to this task; a study's own come first
    options: dict[str, dict[str, Any]] = Field(default_factory=dict)

    def recipe(self, method: str) -> Recipe:
        """Return the recipe with which a method's dense reference, and its pruned network, is trained."""
        values = self.training.model_dump(mode="json") | self.recipes.get(method, {})
        recipe = validated(Recipe, values, f"task {self.name}, recipes.{method}")
        if recipe.data_parallel != self.training.data_parallel:
            raise UserError(
                f"task {self.name}, recipes.{method}.data_parallel = {recipe.data_parallel}, but "
                f"training.data_parallel = {self.training.data_parallel}. Expected: one number for a task; leave the "
                "first out."
            )
        return recipe


class Faithful(Settings):
    """What a task's table [faithful] may hold: where the originals differ from the careful defaults.

    It covers the network, the schedule and the recipe, not what is written into a method. IMP does not remove the
    originals' one weight too many per round, nor restart the schedule at epoch 0 as Rare Gems' code; Rare Gems does not
    freeze all that tie at zero; Smart-Ratio does not truncate. Each method's docstring says in what it "Differs".
    """

    model_options: dict[str, Any] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict)
    recipes: dict[str, dict[str, Any]] = Field(default_factory=dict)
    options: dict[str, dict[str, Any]] = Field(default_factory=dict)


class Study(Settings):
    """A grid of pruning runs and the analyses beside it."""

    name: Name
    description: str = ""
    smoke_of: Name | None = None  # suite.smoke sets it: numbers of such a study mean nothing, and reports say so
    tasks: tuple[str, ...] = Field(min_length=1)
    methods: tuple[str, ...] = ()
    sparsities: tuple[float, ...] = ()
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**63)], ...] = Field(min_length=1)
    analyses: tuple[str, ...] = ()
    options: dict[str, dict[str, Any]] = Field(default_factory=dict)

    @field_validator("tasks", "methods", "sparsities", "seeds", "analyses")
    @classmethod
    def _no_duplicates(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            raise ValueError(f"{twice[0]!r} stands more than once; each value of an axis stands once")
        return values

    @field_validator("sparsities")
    @classmethod
    def _fractions(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        for value in values:
            if not 0 <= value < 1:
                hint = f"; did you mean {value / 100:g}?" if 1 < value < 100 else ""
                raise ValueError(f"sparsity {value:g} is not a fraction removed in [0, 1){hint}")
        return values

    @model_validator(mode="after")
    def _something_to_do(self) -> "Study":
        if not self.methods and not self.analyses:
            raise ValueError("the grid is empty: name at least one of methods, analyses")
        if self.methods and not self.sparsities and set(self.methods) != {"dense"}:
            raise ValueError("the grid is empty: methods need sparsities, for example sparsities = [0.8, 0.9]")
        return self


def read_study(name_or_path: str, overrides: Sequence[str] = ()) -> tuple[Study, dict[str, Task]]:
    """Read a study and every task it names.

    Args:
        name_or_path: a built-in name, or the path of a TOML file.
        overrides: "dotted.key=value" strings; a key of the study, else a key of every task of it.

    Returns:
        The study and its tasks by name, in the study's order.

    Raises:
        UserError: anything that a user would have to mend, in one line.
    """
    path = Path(name_or_path) if _is_path(name_or_path) else settings_file("suite.studies", name_or_path, "study")
    values = read_toml(path)
    known = (*Study.model_fields, *Task.model_fields)
    parsed = [_from_working_folder(*parse_override(text, known)) for text in overrides]
    apply_overrides(values, [(keys, value) for keys, value in parsed if keys[0] in Study.model_fields])
    where = str(path) if _is_path(name_or_path) else f"study {name_or_path}"
    study = validated(Study, values, where, [keys for keys, _ in parsed])
    for_tasks = [(keys, value) for keys, value in parsed if keys[0] not in Study.model_fields]
    tasks = [_read_task(name, path.parent, for_tasks) for name in study.tasks]
    names = [task.name for task in tasks]
    if len(set(names)) < len(names):
        raise UserError(f"{path}: two tasks are named {max(names, key=names.count)!r}. Give each its own name.")
    return study, {task.name: task for task in tasks}


def _is_path(text: str) -> bool:
    return text.endswith(".toml") or "/" in text


def _task_and_variant(name: str) -> tuple[str, bool]:
    """Split "fc5-cifar10:faithful" into the task and whether its faithful variant is meant."""
    task, colon, variant = name.rpartition(":")
    if not colon:
        return name, False
    if variant != FAITHFUL:
        raise UserError(f"task {name!r} has no variant {variant!r}. Expected: {task}, or {task}:{FAITHFUL}.")
    return task, True


def _read_task(name: str, folder: Path, overrides: list[Override]) -> Task:
    """Read one task: a built-in name, or a path relative to the study's file; either with ":faithful" behind it."""
    name, is_faithful = _task_and_variant(name)
    path = folder / name if _is_path(name) else settings_file("suite.tasks", name, "task")
    values = read_toml(path)
    faithful = values.pop(FAITHFUL, None)
    if faithful is not None:
        validated(Faithful, faithful, f"task {name}, {FAITHFUL}")
    if is_faithful:
        values = _faithful_values(values, faithful, name)
    apply_overrides(values, overrides)
    where = f"task {name}:{FAITHFUL}" if is_faithful else f"task {name}"
    task = validated(Task, values, where, [keys for keys, _ in overrides])
    if task.data.endswith((".h5", ".hdf5")) and not Path(task.data).is_absolute():
        task = task.model_copy(update={"data": str((path.parent / task.data).resolve())})
    for method in task.recipes:
        if method not in available("suite.pruning.methods"):
            raise unknown("method", method, available("suite.pruning.methods"), f"recipes.NAME of task {task.name}")
    recipes = {f"recipes.{method}": task.recipe(method) for method in task.recipes}
    check_recipes(task.name, {"training": task.training} | recipes)
    _check_options(task)
    return task


def _faithful_values(values: dict[str, Any], faithful: Any, name: str) -> dict[str, Any]:
    """Return a task's values with those of its originals merged over them, see Faithful, under a name of its own."""
    if faithful is None:
        raise UserError(f"task {name} has no table [{FAITHFUL}]. Name it without :{FAITHFUL}, or add the table.")
    return _merged(values, faithful) | {"name": f"{values.get('name')}-{FAITHFUL}"}


def _merged(values: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    """Return values with others over them; tables are merged key by key."""
    merged = dict(values)
    for key, other in others.items():
        both_tables = isinstance(other, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], other) if both_tables else other
    return merged


def _check_options(task: Task) -> None:
    """Refuse an option that no method or analysis of that name has, also where this study uses none of it."""
    for name, values in task.options.items():
        methods = available("suite.pruning.methods")
        if name not in methods and name not in analyses():
            raise unknown("method or analysis", name, (*methods, *analyses()), f"options.NAME of task {task.name}")
        module = load("suite.pruning.methods" if name in methods else "suite.cells", name, "method or analysis")
        validated(module.Options, values, f"task {task.name}, options.{name}")


def _from_working_folder(keys: list[str], value: Any) -> Override:
    """Make paths given on the command line absolute: they are meant from where the command was typed."""

    def absolute(text: Any) -> Any:
        is_path = isinstance(text, str) and (
            _is_path(text.removesuffix(f":{FAITHFUL}")) or text.endswith((".h5", ".hdf5"))
        )
        return str(Path(text).absolute()) if is_path else text

    if keys == ["tasks"] and isinstance(value, list):
        return keys, [absolute(each) for each in value]
    return keys, absolute(value) if keys == ["data"] else value
