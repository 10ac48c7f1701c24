"""Bad input to `limit` and `spectrum`: exit code 2, one line, nothing written, nothing of the user's executed."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch import nn

from espalier.network_options import named_as_given
from espalier.terminal import num_processors
from suite.errors import UserError
from suite.networks.sources import UserNetwork

Refused = Callable[..., str]
MODULE = """
import torch
import torch.nn.utils.prune
from torch import nn

def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))

def no_module():
    return 42

def raises():
    raise OSError("no such luck,\\ntoo bad.\\n")

def needs_arguments(width):
    return nn.Linear(width, 3)

def raises_in_torch():
    return torch.zeros(2).reshape(7)

def nothing_to_prune():
    return nn.Sequential(nn.LayerNorm(4), nn.Flatten())

class Odd(nn.Sequential):
    def __init__(self, change):
        super().__init__(nn.Flatten(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
        self.change = change

    def forward(self, inputs):
        return self.change(super().forward(inputs))

def noisy():
    return Odd(lambda logits: logits + torch.rand_like(logits))

def detached():
    return Odd(lambda logits: logits.detach())

def by_the_batch():
    norm = nn.BatchNorm1d(5, track_running_stats=False)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 5), norm, nn.Linear(5, 3, bias=False))

def a_pair():
    return Odd(lambda logits: (logits, logits))

def two_classes():
    return Odd(lambda logits: logits[:, :2])

def flat():
    return Odd(lambda logits: logits.sum(dim=1))

def interrupted():
    def ctrl_c(logits):
        raise KeyboardInterrupt
    return Odd(ctrl_c)

def in_place():
    return Odd(lambda logits: 1 / 0)

class Shifting(nn.Linear):
    def forward(self, inputs):
        inputs -= 0.1
        return super().forward(inputs)

def shifting():
    return nn.Sequential(nn.Flatten(), Shifting(4, 5), nn.ReLU(), nn.Linear(5, 3))

def normed():
    model = build()
    torch.nn.utils.parametrizations.weight_norm(model[1])
    return model

def pruned():
    model = build()
    torch.nn.utils.prune.l1_unstructured(model[3], "weight", 0.5)
    return model

def lazy():
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(5), nn.ReLU(), nn.Linear(5, 3))

constant = 3
"""


class Hostile:
    """Writes a file if somebody unpickles it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, (str(self.path), "w")


@pytest.fixture
def mine(working_folder: Path) -> Path:
    """A folder with a user's module, weights that fit, and data that fit."""
    (working_folder / "mymodule.py").write_text(MODULE)
    (working_folder / "broken_syntax.py").write_text("def build(:\n")
    (working_folder / "needs_another.py").write_text("import nowhere\n")
    (working_folder / "broken_import.py").write_text("raise RuntimeError('at\\nimport.')\n")
    torch.save(good_state(), "good.pt")
    write_data("good.h5")
    return working_folder


def good_state() -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    shapes = {"1.weight": (5, 4), "1.bias": (5,), "3.weight": (3, 5), "3.bias": (3,)}
    return {name: torch.randn(shape, generator=draw) for name, shape in shapes.items()}


def write_data(path: str, nan_at: tuple[int, int] | None = None) -> None:
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((300, 4)).astype(np.float32)
    if nan_at:
        inputs[nan_at] = np.nan
    with h5py.File(path, "w") as file:
        file["train/inputs"] = inputs
        file["train/targets"] = np.arange(300) % 3


def options(**changes: object) -> list[object]:
    values = {"model": "mymodule:build", "weights": "good.pt", "data": "good.h5"} | changes
    return [word for name, value in values.items() for word in (f"--{name.replace('_', '-')}", value)]


def place(code: str) -> str:
    """Return where the module holds some code, as a line of an error tells it."""
    (number,) = [number for number, line in enumerate(MODULE.splitlines(), 1) if code in line]
    return f"mymodule.py, line {number}"


MODELS = [
    ("nowhere:build", "'nowhere:build': there is no module 'nowhere' in the working directory or the environment."),
    ("mymodule:biuld", "'mymodule:biuld': mymodule has no 'biuld'. Did you mean 'build'? Expected: MODULE:FUNCTION"),
    ("mymodule", "'mymodule' names no function. Expected: MODULE:FUNCTION, for example mynet:build"),
    (":build", "':build' names no function."),
    ("mymodule.py:build", "'mymodule.py:build' names a file. Did you mean 'mymodule:build', from its folder?"),
    ("broken_syntax:build", "broken_syntax.py, line 1: invalid syntax. Mend that line."),
    ("broken_import:build", "importing broken_import failed: RuntimeError: at import. Mend the module."),
    ("needs_another:build", "importing needs_another failed: ModuleNotFoundError: No module named 'nowhere'."),
    (
        "mymodule:constant",
        "'mymodule:constant' is not a function. Expected: a function that returns a torch.nn.Module.",
    ),
    ("mymodule:no_module", "mymodule:no_module returned int. Expected: a torch.nn.Module."),
    (
        "mymodule:raises",
        f"mymodule:raises failed in {place('no such luck')}: OSError: no such luck, too bad. Mend the function.",
    ),
    (
        "mymodule:raises_in_torch",
        f"mymodule:raises_in_torch failed in {place('reshape(7)')}: RuntimeError: shape '[7]' is invalid",
    ),
    ("mymodule:needs_arguments", "mymodule:needs_arguments failed: TypeError: needs_arguments() missing 1 required"),
    ("mymodule:nothing_to_prune", "Sequential has no prunable weights. Expected: a convolution or a linear layer."),
    ("mymodule:shifting", "mymodule:shifting changes its inputs in place, which are its caller's data. Expected: x = "),
    (
        "mymodule:normed",
        "Module '1' (ParametrizedLinear) is parametrised (weight_norm); its weight is computed from others. Remove it "
        "first: torch.nn.utils.parametrize.remove_parametrizations(module, 'weight').",
    ),
    ("mymodule:pruned", "Module '3' (Linear) is parametrised (prune); its weight is computed from others."),
    ("mymodule:lazy", "Module '1' (LazyLinear) is lazy: its tensors have no shape yet. Run one batch through"),
    ("mymodule:a_pair", "mymodule:a_pair returned tuple for 2 inputs. Expected: logits (2, classes)"),
    ("mymodule:two_classes", "mymodule:two_classes returned (2, 2) for 2 inputs."),
    ("mymodule:flat", "mymodule:flat returned (2,) for 2 inputs."),
    (
        "mymodule:in_place",
        f"mymodule:in_place does not take inputs of shape (4,): division by zero ({place('1 / 0')}). Mend",
    ),
    ("mymodule:noisy", "Module '(the network itself)' (Odd) is random in eval mode. Expected: equal results"),
    ("mymodule:detached", "The logits carry no gradient to 1.weight, 3.weight."),
]


@pytest.mark.parametrize("command", ["limit", "spectrum"])
@pytest.mark.parametrize(("model", "words"), MODELS, ids=[model for model, _ in MODELS])
def test_a_model_that_cannot_be_used(model: str, words: str, command: str, mine: Path, refused: Refused) -> None:
    assert words in refused(command, *options(model=model))


def test_a_network_that_normalises_by_the_batch(mine: Path, refused: Refused) -> None:
    state = without(good_state(), "3.bias") | {"2.weight": torch.ones(5), "2.bias": torch.zeros(5)}
    torch.save(state, "norm.pt")
    line = refused("limit", *options(model="mymodule:by_the_batch", weights="norm.pt"))
    assert "Module '2' (BatchNorm1d) has no running statistics" in line


@pytest.mark.parametrize("effort", [(), ("--probes", 3), ("--tolerance", 0.01)])
def test_weights_that_are_finite_and_have_diverged(effort: tuple[object, ...], mine: Path, refused: Refused) -> None:
    torch.save({name: 1e30 * weight for name, weight in good_state().items()}, "huge.pt")
    line = refused("limit", *options(weights="huge.pt"), *effort)
    assert "The loss is not finite in 3 of 3 batches of 128 examples: the weights, finite as they are, have" in line
    assert line.endswith("Expected: finite losses. Give weights from earlier in training.")


@pytest.mark.parametrize("command", ["limit", "spectrum"])
def test_more_threads_than_processors(command: str, mine: Path, refused: Refused) -> None:
    most = num_processors()
    line = refused(command, *options(threads=1_000_000))
    assert line.endswith(f"--threads 1000000 is more than this process has processors. Expected: 1 to {most}.")
    assert "Expected: 1 to" in refused(command, *options(threads=most + 1))


INTERRUPTS = [
    (
        ("--tolerance", 0.01, "--checkpoint", "saved"),
        "the runs that are saved in saved stay. Go on with the same command: espalier {command} --model ",
    ),
    (("--tolerance", 0.01), "nothing was saved; give --checkpoint DIR to be able to go on."),
    (("--probes", 3), "nothing was saved; --tolerance with --checkpoint DIR is able to go on."),
]


@pytest.mark.parametrize("command", ["limit", "spectrum"])
@pytest.mark.parametrize(("effort", "words"), INTERRUPTS)
def test_an_interrupt_is_told_with_how_to_go_on(
    command: str, effort: tuple[object, ...], words: str, mine: Path, espalier: Callable[..., Any]
) -> None:
    answer = espalier(command, *options(model="mymodule:interrupted"), *effort)
    assert answer.code == 130
    (line,) = answer.err.splitlines()
    assert line.startswith(f"espalier: interrupted; {words.format(command=command)}")


def test_an_interrupt_before_anything_has_begun_is_told(
    mine: Path, espalier: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def ctrl_c(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("espalier.network_commands._source", ctrl_c)
    answer = espalier("limit", *options())
    assert (answer.code, answer.err.strip()) == (130, "espalier: interrupted")


def test_an_escape_code_in_a_name_never_reaches_the_terminal(mine: Path, refused: Refused) -> None:
    torch.save(good_state() | {"\x1b]0;owned\x07": torch.ones(1)}, "bad.pt")
    assert "\x1b" not in refused("limit", *options(weights="bad.pt"))


def without(state: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    return {key: value for key, value in state.items() if key != name}


WEIGHTS = [
    (without(good_state(), "3.bias"), "does not fit the model: it lacks '3.bias'."),
    (good_state() | {"5.weight": torch.ones(2)}, "it has '5.weight', which the model has not."),
    (good_state() | {"1.weight": torch.ones(4, 5)}, "'1.weight' is (4, 5), the model's is (5, 4)."),
    (good_state() | {"3.bias": torch.tensor([0, torch.nan, 0])}, "'3.bias' holds NaN or infinite values."),
    (good_state() | {"3.bias": torch.tensor([0, 0, torch.inf])}, "'3.bias' holds NaN or infinite values."),
    ({f"module.{name}": value for name, value in good_state().items()}, "every name begins with 'module.', which a wr"),
    ({7: torch.ones(2)}, "does not fit the model: it lacks '1.weight'."),
    (good_state() | {7: torch.ones(2)}, "it has '7', which the model has not."),
    (good_state() | {"3.bias": 3}, "holds no state dict."),
    ([torch.ones(3)], "holds no state dict."),
    ({"state_dict": good_state(), "epoch": 3}, "is a checkpoint that holds a state dict under 'state_dict'. Save that"),
    ({"epoch": 3}, "holds no state dict."),
    (nn.Linear(4, 3), "cannot be read as weights: "),
]


@pytest.mark.parametrize(("content", "words"), WEIGHTS, ids=[words[:30] for _, words in WEIGHTS])
def test_weights_that_do_not_fit(content: object, words: str, mine: Path, refused: Refused) -> None:
    torch.save(content, "bad.pt")
    line = refused("limit", *options(weights="bad.pt"))
    assert "bad.pt" in line
    assert words in line


@pytest.mark.filterwarnings("error")  # torch has words of its own for a foreign pickle: the answer is one line
@pytest.mark.parametrize("saver", ["torch", "old torch", "pickle"])
def test_code_in_weights_is_never_run(saver: str, mine: Path, tmp_path: Path, refused: Refused) -> None:
    trap = Hostile(tmp_path / "executed")
    if saver == "pickle":
        Path("bad.pt").write_bytes(pickle.dumps({"1.weight": trap}))
    else:
        torch.save({"1.weight": trap}, "bad.pt", _use_new_zipfile_serialization=saver == "torch")
    assert "bad.pt cannot be read as weights: " in refused("limit", *options(weights="bad.pt"))
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", ["none.pt", "folder", "good.h5", "empty.pt", "half.pt"])
def test_a_file_of_weights_that_is_none(name: str, mine: Path, refused: Refused) -> None:
    Path("folder").mkdir()
    Path("empty.pt").touch()
    Path("half.pt").write_bytes(Path("good.pt").read_bytes()[:-200])
    assert f"espalier: {name} " in refused("spectrum", *options(weights=name))


def test_data_that_are_not_finite(mine: Path, refused: Refused) -> None:
    write_data("bad.h5", nan_at=(7, 2))
    assert "bad.h5 has 1 values in train/inputs that are not finite" in refused("limit", *options(data="bad.h5"))


@pytest.mark.parametrize("kind", ["external", "soft", "virtual"])
def test_data_that_refer_elsewhere(kind: str, mine: Path, refused: Refused) -> None:
    with h5py.File("bad.h5", "w") as file:
        file["train/targets"] = np.arange(300) % 3
        if kind == "virtual":
            layout = h5py.VirtualLayout((300, 4), np.float32)
            layout[:] = h5py.VirtualSource("good.h5", "train/inputs", (300, 4))
            file["train"].create_virtual_dataset("inputs", layout)
        else:
            link = {"external": h5py.ExternalLink("good.h5", "/train/inputs"), "soft": h5py.SoftLink("/train/targets")}
            file["train/inputs"] = link[kind]
    assert "bad.h5 refers elsewhere: " in refused("limit", *options(data="bad.h5"))


@pytest.mark.parametrize("name", ["none.h5", "folder", "good.pt", "half.h5"])
def test_a_file_of_data_that_is_none(name: str, mine: Path, refused: Refused) -> None:
    Path("folder").mkdir()
    Path("half.h5").write_bytes(Path("good.h5").read_bytes()[:-500])
    assert f"espalier: {name} " in refused("limit", *options(data=name))


def test_data_of_another_shape(mine: Path, refused: Refused) -> None:
    with h5py.File("bad.h5", "w") as file:
        file["train/inputs"] = np.zeros((300, 7), np.float32)
        file["train/targets"] = np.arange(300) % 3
    line = refused("limit", *options(data="bad.h5"))
    assert "mymodule:build does not take inputs of shape (7,): mat1 and mat2 shapes cannot be multiplied" in line


OPTIONS = [
    (
        "precision",
        "float46",
        "--precision 'float46' is unknown. Did you mean 'float64'? Expected: one of float32, float64, tf32, bfloat16.",
    ),
    pytest.param(
        "precision",
        "tf32",
        "--precision 'tf32' needs a CUDA device, and this is cpu. Expected: float32, float64 or bfloat16.",
        marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device"),
    ),
    ("curvature", "negative", "--curvature 'negative' is unknown. Expected: abs or positive."),
    ("loss_tolerance", -0.1, "--loss-tolerance -0.1 is no tolerance. Expected: a positive number of nats."),
    ("loss_tolerance", 0, "--loss-tolerance 0.0 is no tolerance."),
    ("loss_tolerance", "nan", "--loss-tolerance nan is no tolerance."),
    ("loss_tolerance", "inf", "--loss-tolerance inf is no tolerance."),
    ("tolerance", 0, "--tolerance 0.0 is no error in sparsity. Expected: a number between 0 and 1."),
    ("tolerance", 1, "--tolerance 1.0 is no error in sparsity."),
    ("tolerance", "nan", "--tolerance nan is no error in sparsity."),
    ("checkpoint", "good.h5", "--checkpoint good.h5 is a file. Expected: a folder, or nothing there yet."),
    ("checkpoint", "/proc/runs", "--checkpoint /proc/runs cannot be written: No such file or directory."),
    ("checkpoint", "/dev/null/runs", "--checkpoint /dev/null/runs cannot be written: Not a directory."),
    ("examples", 301, "--examples 301 is out of range. Expected: 1 to 300."),
    ("group_size", 2, "--group-size 2 does not go with --workers 1. Expected: --workers 2, or a multiple of it."),
    ("json", "no/such/limit.json", "no/such/limit.json cannot be written. Give --json a file in a folder that exists"),
    ("json", "good.h5/limit.json", "good.h5/limit.json cannot be written."),
    ("json", "folder", "folder cannot be written."),
    ("json", "/proc/limit.json", "/proc/limit.json cannot be written."),
]


@pytest.mark.parametrize(("option", "value", "words"), OPTIONS)
def test_an_option_that_cannot_be(option: str, value: object, words: str, mine: Path, refused: Refused) -> None:
    Path("folder").mkdir()
    assert words in refused("limit", *options(**{option: value}))


def test_a_spectrum_over_too_many_examples_names_the_option(mine: Path, refused: Refused) -> None:
    assert "--examples 301 is out of range. Expected: 1 to 300." in refused("spectrum", *options(examples=301))


def test_a_group_larger_than_the_data_names_the_option(mine: Path) -> None:
    source = UserNetwork("mymodule:build", Path("good.pt"), Path("good.h5"), "cpu")
    with pytest.raises(UserError, match=r"^--group-size 400 is too large for 300 examples"), named_as_given():
        source.build_shard(0, 400)


@pytest.mark.parametrize("option", ["probes", "steps", "workers", "threads", "seed"])
def test_a_number_out_of_range_is_told_in_one_line(option: str, mine: Path, refused: Refused) -> None:
    line = refused("limit", *options(**{option: -1}))
    assert f"Invalid value for '--{option}'" in line
    assert "(given: -1). See: espalier limit --help" in line


@pytest.mark.parametrize("fixed", ["probes", "steps", "examples"])
def test_a_tolerance_and_a_fixed_effort_exclude_each_other(fixed: str, mine: Path, refused: Refused) -> None:
    line = refused("limit", *options(**{fixed: 3}), "--tolerance", 0.01)
    assert f"--tolerance 0.01 chooses what --{fixed} fixes." in line
    assert f"Expected: no --{fixed}." in refused("limit", *options(**{fixed: 3}), "--checkpoint", "saved")


@pytest.mark.parametrize("fixed", ["probes", "steps", "examples"])
def test_a_spectrum_has_the_same_rules_of_exclusion(fixed: str, mine: Path, refused: Refused) -> None:
    line = refused("spectrum", *options(**{fixed: 3}), "--tolerance", 0.01)
    assert f"--tolerance 0.01 chooses what --{fixed} fixes." in line


@pytest.mark.parametrize(("option", "value"), [("checkpoint", "saved"), ("loss_tolerance", 0.1)])
def test_what_a_spectrum_of_fixed_effort_has_no_use_for(
    option: str, value: object, mine: Path, refused: Refused
) -> None:
    line = refused("spectrum", *options(**{option: value}))
    assert line.endswith(f"{value} goes with a tolerance. Expected: --tolerance beside it, or neither.")


def test_a_data_set_by_its_name(refused: Refused, espalier: Callable[..., Any], working_folder: Path) -> None:
    (working_folder / "named.py").write_text(
        "from torch import nn\n\ndef build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
    )
    torch.save(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).state_dict(), working_folder / "named.pt")
    words = ("spectrum", "--model", "named:build", "--weights", "named.pt")
    assert "run: espalier data prepare mnist --from " in refused(*words, "--data", "mnist")
    answer = espalier(*words, "--data", "digits", "--steps", "2", "--probes", "1", "--examples", "50", "--threads", "1")
    assert answer.code == 0, answer
    assert "num_examples: 50" in answer.out
