"""What is rounded and what is not; what a machine cannot do is refused in one line."""

import shutil
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from suite.curvature.arithmetic import Operands
from suite.errors import UserError
from suite.problem import evaluate
from suite.splits import Split
from suite.study import Recipe
from suite.training.arithmetic import Arithmetic, precision_of, trained_in
from suite.training.loop import train

Make = Callable[..., Recipe]
CPU = torch.device("cpu")


@torch.random.fork_rng(devices=[])
def network() -> nn.Module:
    torch.manual_seed(1)
    layers = [nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 3)]
    return nn.Sequential(*layers)


def splits(count: int = 96) -> dict[str, Split]:
    """Three classes that differ by the place of a bright square."""
    draw = torch.Generator().manual_seed(5)
    targets = torch.randint(0, 3, (count,), generator=draw)
    inputs = torch.randn(count, 1, 6, 6, generator=draw)
    for index, target in enumerate(targets.tolist()):
        inputs[index, 0, 2 * target : 2 * target + 2] += 2
    half = count // 2
    return {"train": Split(inputs[:half], targets[:half]), "test": Split(inputs[half:], targets[half:])}


def test_auto_is_float32_on_a_cpu(recipe: Make) -> None:
    assert Arithmetic.of(recipe(), CPU).precision == "float32"
    assert Arithmetic.of(recipe(precision="bfloat16"), CPU).precision == "bfloat16"


@pytest.mark.parametrize(("capability", "precision"), [((7, 5), "float32"), ((8, 0), "bfloat16"), ((9, 0), "bfloat16")])
def test_auto_on_a_gpu_is_what_it_has(
    recipe: Make, monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], precision: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert precision_of(recipe(), torch.device("cuda")) == precision
    assert precision_of(recipe(precision="tf32"), torch.device("cuda")) == "tf32"
    assert trained_in([recipe()], "cuda") == {"training_precision": precision}


def test_what_a_record_says_of_its_trainings(recipe: Make) -> None:
    auto, coarse = recipe(), recipe(precision="bfloat16")
    assert trained_in([auto, auto], "cpu") == {"training_precision": "float32"}
    assert trained_in([auto, coarse], "cpu") == {"training_precision": "bfloat16, float32"}
    assert trained_in([], "cpu") == {}


def test_bfloat16_rounds_products_and_nothing_that_stays(recipe: Make) -> None:
    made = recipe(precision="bfloat16")
    model, (inputs, *_) = network(), splits()["train"]
    logits = Arithmetic.of(made, CPU).forward(model, 32)(inputs).detach()
    exact = model(inputs).detach()
    assert logits.dtype == torch.float32
    error = float((logits - exact).norm() / exact.norm())
    assert 1e-5 < error < 3e-2  # 8 bits of mantissa
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


@pytest.mark.parametrize(("precision", "operands"), [("float32", "full"), ("bfloat16", "bfloat16")])
def test_curves_are_evaluated_as_the_training_computes(recipe: Make, precision: str, operands: Operands) -> None:
    model, data = network(), splits()
    history = train(model, data, recipe(epochs=8, batch_size=16, learning_rate=0.05, precision=precision), 0)
    assert history.curves["test_accuracy"][-1] > 0.9
    last = history.curves["test_loss"][-1], history.curves["test_accuracy"][-1]
    assert last == evaluate(model, data["test"], operands=operands)
    exact = evaluate(model, data["test"])
    with torch.no_grad():
        logits = model.eval()(data["test"].inputs)
    assert exact.loss == pytest.approx(float(nn.functional.cross_entropy(logits, data["test"].targets)), rel=1e-6)
    assert (last == exact) == (precision == "float32")
    assert last[0] == pytest.approx(exact.loss, rel=3e-2)


def test_flags_are_as_they_were(recipe: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    with Arithmetic.of(recipe(), CPU).applied():
        assert torch.backends.cudnn.deterministic
    assert not torch.backends.cudnn.deterministic


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"precision": "tf32"}, 'training.precision = "tf32" needs a CUDA GPU, this is cpu. Expected: "auto", '),
        (
            {"compile": "cuda_graphs"},
            'training.compile = "cuda_graphs" needs a CUDA GPU, this is cpu. Expected: "none"',
        ),
    ],
)
def test_what_a_cpu_cannot_do(recipe: Make, changes: dict[str, str], line: str) -> None:
    with pytest.raises(UserError) as error:
        train(network(), splits(), recipe(**changes), 0)
    assert str(error.value).startswith(line)
    assert "\n" not in str(error.value)


def test_without_a_compiler_nothing_is_compiled(recipe: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(
        UserError, match=r'^training.compile = "inductor" needs a C\+\+ compiler, and there is no \S+\. '
    ):
        train(network(), splits(), recipe(compile="inductor"), 0)


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Let Dynamo do its part, and count the graphs that it has for a compiler, which here is none."""
    counted: list[int] = []

    def counting(graph: torch.fx.GraphModule, _: object) -> Callable[..., object]:
        counted.append(len(graph.graph.nodes))
        return graph.forward  # type: ignore[no-any-return]

    real = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda written, **options: real(written, backend=counting, dynamic=options["dynamic"])
    )
    torch._dynamo.reset()
    yield counted
    torch._dynamo.reset()


@torch.random.fork_rng(devices=[])
def through(arithmetic: Arithmetic, num_layers: int) -> Tensor:
    model = nn.Sequential(*[nn.Linear(4, 4) for _ in range(num_layers)])
    with arithmetic.applied():
        return arithmetic.forward(model, 8)(torch.ones(8, 4))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")
def test_a_process_compiles_however_many_networks_it_trains(graphs: list[int]) -> None:
    arithmetic = Arithmetic("float32", "inductor", CPU)
    default = torch._dynamo.config.recompile_limit
    most = default + 2
    for count in range(1, most + 1):
        through(arithmetic, count)
        assert len(graphs) == count
        assert torch._dynamo.config.recompile_limit == default
    through(arithmetic, 1)  # another network of the first's shape
    assert len(graphs) == most


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")
def test_what_torch_would_run_as_written_is_refused(graphs: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("suite.training.arithmetic._NETWORKS", 1)
    arithmetic = Arithmetic("float32", "inductor", CPU)
    through(arithmetic, 1)
    with pytest.raises(UserError, match=r"^This network cannot be compiled: .*limit.* Set training.compile = "):
        through(arithmetic, 2)
    assert len(graphs) == 1


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")  # of torch, importing itself
@pytest.mark.slow  # the compiler takes half a minute
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_compiled_training_is_the_same_up_to_rounding(recipe: Make, precision: str) -> None:
    data, trained = splits(), []
    for mode in ("none", "inductor", "inductor"):
        model = network()
        made = recipe(epochs=4, batch_size=20, learning_rate=0.02, momentum=0.9, compile=mode, precision=precision)
        train(model, data, made, 0)
        trained.append({name: value.clone() for name, value in model.state_dict().items()})
    plain, compiled, again = trained
    assert list(compiled) == list(plain)
    largest = 1e-4 if precision == "float32" else 5e-2
    for name, value in plain.items():
        assert torch.allclose(compiled[name].float(), value.float(), rtol=largest, atol=largest)
        assert torch.equal(compiled[name], again[name])
