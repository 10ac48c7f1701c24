"""What of a training only a CUDA device can show. Run on a machine that has one: make test-gpu

Each test runs on the CPU as well, where it says less, so that what is written here works before a GPU is at hand.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from data import StoredSplit, write_dataset
from suite.attempt import attempt
from suite.curvature.arithmetic import Operands
from suite.datasets import stored_splits
from suite.network import build_model, model_spec
from suite.planner import make_plan
from suite.problem import evaluate
from suite.pruning.masks import Masks
from suite.seeds import generator
from suite.splits import Examples, Normalisation, Split
from suite.store import Store
from suite.streaming import StreamedSplit
from suite.study import Recipe, read_study
from suite.training import checkpoint
from suite.training.arithmetic import Arithmetic, precision_of
from suite.training.augmentation import CropFlip
from suite.training.checkpoint import Notice, Stage, Trainings
from suite.training.hooks import Hooks
from suite.training.loop import History, train
from suite.training.stepper import Stepper

Make = Callable[..., Recipe]
CPU = torch.device("cpu")
HAS_CUDA = torch.cuda.is_available()
ON_CUDA = [pytest.mark.gpu, pytest.mark.skipif(not HAS_CUDA, reason="needs a CUDA device")]
# Other warnings than of torch's own compiler still are errors.
COMPILER_WARNS = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning:torch")
NUM_STEPS = 9  # three epochs of 50 examples in batches of 20


class Power(Exception):
    """Goes out."""


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=ON_CUDA)])
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device("cuda", 0) if request.param == "cuda" else CPU


def needs(device: torch.device, precision: str) -> None:
    """Skip what the device does not have."""
    if precision == "tf32" and device.type != "cuda":
        pytest.skip("TF32 is of CUDA devices")
    if device.type == "cuda" and precision != "float32" and torch.cuda.get_device_capability(device) < (8, 0):
        pytest.skip("TF32 and bfloat16 came with compute capability 8.0")


@torch.random.fork_rng(devices=[])
def convolutional(dropout: float = 0.2) -> Any:
    torch.manual_seed(3)
    layers = [nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 1)]
    return nn.Sequential(*layers, nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(dropout), nn.Linear(8 * 16, 3))


def images(device: torch.device, shape: tuple[int, ...] = (3, 8, 8)) -> dict[str, Split]:
    draw, normalisation = torch.Generator().manual_seed(5), Normalisation((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))

    def one(size: int) -> Split:
        pixels = torch.randint(0, 256, (size, *shape), generator=draw, dtype=torch.uint8)
        return Split(pixels.to(device), torch.randint(0, 3, (size,), generator=draw).to(device), normalisation)

    return {"train": one(50), "validation": one(20), "test": one(20)}


def masks() -> Masks:
    draw = torch.Generator().manual_seed(1)
    return {name: torch.rand(shape, generator=draw) < 0.5 for name, shape in (("0.weight", (16, 3, 3, 3)),)}


def everything(model: nn.Module, history: History) -> dict[str, Any]:
    bits = {name: value.detach().cpu().numpy().tobytes() for name, value in model.state_dict().items()}
    return bits | {"history": repr(asdict(history))}


def stage(folder: Path) -> Stage:
    found = Trainings(folder, "tiny", Notice()).stage("training")
    assert found is not None
    return found


def dying_in(step: int) -> Hooks:
    steps: list[int] = []

    def die() -> None:
        steps.append(1)
        if len(steps) == step:
            raise Power

    return Hooks(after_step=die)


def check_going_on(
    made: Recipe, device: torch.device, folder: Path, monkeypatch: pytest.MonkeyPatch, kept: Masks | None
) -> None:
    """Let a training die after each of its steps, and hold what goes on against one that ran through."""
    monkeypatch.setattr(checkpoint, "SHORTEST_S", 0.0)
    monkeypatch.setattr(checkpoint, "MOST_TIME", 1.0)
    data, whole = images(device), convolutional().to(device)
    expected = everything(whole, train(whole, data, made, 0, masks=kept))
    for dies_in in range(1, NUM_STEPS + 1):
        path = folder / str(dies_in)
        dying = convolutional().to(device)
        with pytest.raises(Power):
            train(dying, data, made, 0, masks=kept, hooks=dying_in(dies_in), stage=stage(path))
        model = convolutional().to(device)
        history = train(model, data, made, 0, masks=kept, stage=stage(path))
        assert everything(model, history) == expected, f"died in step {dies_in}"


CHANGES: dict[str, dict[str, Any]] = {
    "nesterov": {"momentum": 0.9, "nesterov": True, "schedule": "cosine"},
    "adam": {"optimiser": "adam", "micro_batch_size": 8, "l1": 1e-3},
}


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
@pytest.mark.parametrize("case", CHANGES)
@pytest.mark.parametrize("pruned", [False, True])
def test_a_training_goes_on_to_the_same_bits(
    recipe: Make,
    device: torch.device,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
    case: str,
    pruned: bool,
) -> None:
    needs(device, precision)
    options = {"augmentation": "crop_flip", "precision": precision, "weight_decay": 1e-3} | CHANGES[case]
    made = recipe(epochs=3, batch_size=20, **options)
    check_going_on(made, device, tmp_path, monkeypatch, masks() if pruned else None)


@COMPILER_WARNS
@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
@pytest.mark.parametrize("mode", ["inductor", "cuda_graphs"])
def test_a_compiled_training_goes_on_to_the_same_bits(
    recipe: Make, device: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, mode: str
) -> None:
    needs(device, precision)
    if mode == "cuda_graphs" and device.type != "cuda":
        pytest.skip("CUDA graphs are of CUDA devices")
    made = recipe(epochs=3, batch_size=20, momentum=0.9, precision=precision, compile=mode)
    check_going_on(made, device, tmp_path, monkeypatch, masks())


@contextmanager
def nondeterminism_is_an_error(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Within, let torch tell of every kernel that may sum in another order the next time, and fail at the end."""
    # cuBLAS sums in one order wherever it is called from one stream, as here; torch asks for this in any case.
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    always = torch.is_warn_always_enabled()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        torch.use_deterministic_algorithms(mode=True, warn_only=True)
        torch.set_warn_always(True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(mode=before[0], warn_only=before[1])
            torch.set_warn_always(always)
    assert not [str(each.message) for each in told]


def test_torch_tells_of_a_kernel_that_is_not_deterministic(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    if device.type != "cuda":
        pytest.skip("all kernels of the CPU that have such a warning are of CUDA")
    values = torch.rand(1, 1, 8, 8, device=device, requires_grad=True)
    with pytest.raises(AssertionError, match="determinis"), nondeterminism_is_an_error(monkeypatch):
        nn.functional.adaptive_avg_pool2d(values, 3).sum().backward()


@pytest.mark.parametrize("name", ["fc5", "alexnet", "resnet20", "resnet18", "resnet50", "vgg16"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_no_kernel_of_a_training_sums_in_a_changing_order(
    recipe: Make, device: torch.device, monkeypatch: pytest.MonkeyPatch, name: str, precision: str
) -> None:
    needs(device, precision)
    data = images(device, (3, 32, 32))
    data = {split: examples.part(slice(6)) for split, examples in data.items()}
    model = build_model(model_spec(name, {}, (3, 32, 32), 10), 0).to(device)
    made = recipe(epochs=1, batch_size=3, momentum=0.9, learning_rate=1e-3, l1=1e-4, augmentation="crop_flip")
    with nondeterminism_is_an_error(monkeypatch):
        train(model, data, made.model_copy(update={"precision": precision}), 0)


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
@pytest.mark.parametrize("case", CHANGES)
def test_masks_are_kept_exactly(recipe: Make, device: torch.device, precision: str, case: str) -> None:
    needs(device, precision)
    model, kept = convolutional().to(device), masks()
    pruned = ~kept["0.weight"].to(device)
    seen: list[bool] = []
    hooks = Hooks(after_step=lambda: seen.append(bool(model[0].weight.detach()[pruned].any())))
    before = model[0].weight.detach().clone()
    made = recipe(epochs=3, batch_size=20, precision=precision, weight_decay=1e-2, **CHANGES[case])
    train(model, images(device), made, 0, masks=kept, hooks=hooks)
    assert seen == [False] * NUM_STEPS
    assert (model[0].weight.detach() != before)[~pruned].all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_crops_and_flips_are_those_of_the_cpu(device: torch.device, dtype: torch.dtype) -> None:
    whole, index = images(CPU, (3, 6, 5))["train"], torch.tensor([7, 3, 49, 0, 12, 11])
    whole = whole._replace(inputs=whole.inputs.to(dtype))
    there = Split(whole.inputs.to(device), whole.targets.to(device), whole.normalisation)
    here = CropFlip.drawn(3, 1, 50, CPU)(whole.part(index), index)
    drawn = CropFlip.drawn(3, 1, 50, device)
    found = drawn(there.part(index.to(device)), index.to(device))
    assert found.inputs.device == device
    assert torch.equal(found.inputs.cpu(), here.inputs)
    assert torch.equal(found.targets.cpu(), here.targets)
    assert torch.equal(found.network_inputs().cpu(), here.network_inputs())
    flipped = drawn.flips.index_select(0, index.to(device))
    assert 0 < int(flipped.sum()) < len(index)


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_fused_steps_are_those_of_a_plain_loop_in_float64(recipe: Make, device: torch.device, optimiser: str) -> None:
    """Tanh instead of ReLU and no pooling, so that rounding flips nothing; 1e-5 is 100 roundings of float32."""

    @torch.random.fork_rng(devices=[])
    def smooth() -> nn.Module:
        torch.manual_seed(3)
        return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8 * 36, 3))

    changes: dict[str, Any] = {"optimiser": "adam"} if optimiser == "adam" else {"momentum": 0.9, "nesterov": True}
    made = recipe(epochs=3, batch_size=20, learning_rate=0.01, weight_decay=1e-3, **changes)
    model, data = smooth().to(device), images(device)
    arithmetic = Arithmetic.of(made.model_copy(update={"precision": "float32"}), device)
    stepper = Stepper(model, made, None, Hooks(), arithmetic, images_last=False)
    assert stepper.optimiser.defaults["fused"]
    train(model, data, made.model_copy(update={"precision": "float32"}), 0)

    plain, split = smooth().double(), images(CPU)["train"]
    options: dict[str, Any] = {"lr": 0.01, "weight_decay": 1e-3, "foreach": False, "fused": False}
    reference: torch.optim.Optimizer = torch.optim.SGD(plain.parameters(), momentum=0.9, nesterov=True, **options)
    if optimiser == "adam":
        reference = torch.optim.Adam(plain.parameters(), **options)
    for epoch in range(3):
        for index in torch.randperm(50, generator=generator(0, "order", epoch)).split(20):
            reference.zero_grad()
            batch = split.part(index)
            nn.functional.cross_entropy(plain(batch.network_inputs().double()), batch.targets).backward()
            reference.step()
    initial = smooth().double()
    for one, other, begin in zip(model.parameters(), plain.parameters(), initial.parameters(), strict=True):
        error = (one.detach().cpu().double() - other.detach()).norm()
        # Adam divides by the gradient's own size, which of the smallest gradients is rounding
        assert float(error / (other.detach() - begin.detach()).norm()) < (1e-3 if optimiser == "adam" else 1e-5)


def test_auto_is_bfloat16_where_the_device_has_it(recipe: Make, device: torch.device) -> None:
    has_it = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    made, operands = recipe(batch_size=20), "bfloat16" if has_it else "full"
    assert precision_of(made, device) == ("bfloat16" if has_it else "float32")
    trained = []
    for precision in ("auto", "bfloat16" if has_it else "float32", "bfloat16"):
        model = convolutional().to(device)
        history = train(model, images(device), made.model_copy(update={"precision": precision}), 0)
        trained.append(everything(model, history))
        assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
        if precision == "auto":
            exact = evaluate(model, images(device)["test"])
            last = evaluate(model, images(device)["test"], operands=operands)
            assert history.curves["test_loss"][-1] == last.loss
            assert last.loss == pytest.approx(exact.loss, rel=3e-2)
            assert (last.loss == exact.loss) == (not has_it)
    assert trained[0] == trained[1]
    assert (trained[0] == trained[2]) == has_it


@pytest.mark.parametrize("operands", ["full", "tf32", "bfloat16"])
def test_an_evaluation_rounds_as_it_is_told_and_puts_the_switches_back(
    device: torch.device, allow_tf32: Callable[[bool], None], operands: Operands
) -> None:
    needs(device, "float32" if operands == "full" else operands)
    allow_tf32(True)
    model = convolutional().double()
    exact = evaluate(model, _in_float64(images(CPU)["test"])).loss
    there, split = model.float().to(device), images(device)["test"]
    found, full = (evaluate(there, split, operands=each).loss for each in (operands, "full"))
    assert found == pytest.approx(exact, rel={"full": 1e-6, "tf32": 1e-2, "bfloat16": 5e-2}[operands])
    assert (found == full) == (operands == "full")
    assert torch.backends.cudnn.allow_tf32
    assert torch.backends.cuda.matmul.allow_tf32


def _in_float64(split: Split) -> Split:
    return Split(split.network_inputs().double(), split.targets)


def test_streamed_examples_train_to_the_bits_of_resident_ones(
    recipe: Make, device: torch.device, tmp_path: Path
) -> None:
    draw, splits = np.random.default_rng(0), {}
    for name, size in (("train", 150), ("validation", 40), ("test", 50)):
        pixels = draw.integers(0, 256, (size, 3, 8, 8)).astype("uint8")
        splits[name] = StoredSplit(pixels, np.arange(size) % 3)
    moments = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.3)}
    path = tmp_path / "images.h5"
    write_dataset(path, splits, {"classes": 3, "source": "made here", "licence": "CC0", **moments})
    made = recipe(epochs=2, batch_size=32, momentum=0.9, augmentation="crop_flip")

    def trained(stream: bool) -> Any:
        data: dict[str, Examples] = stored_splits(path, device.type, stream=stream)
        assert all(isinstance(each, StreamedSplit) == stream for each in data.values())
        model = convolutional().to(device)
        history = train(model, data, made, 0)
        return everything(model, history), [evaluate(model, each, batch_size=37) for each in data.values()]

    assert trained(stream=True) == trained(stream=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    "backend",
    [
        pytest.param("gloo", marks=pytest.mark.skipif(HAS_CUDA, reason="cells compute on the CUDA device")),
        pytest.param(
            "nccl",
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices"),
            ],
        ),
    ],
)
def test_two_processes_train_one_network_to_the_same_bits_each_time(
    tiny_study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    settings = ['methods=["lomp"]', "options={}", "analyses=[]", "sparsities=[0.5]", "training.momentum=0.9"]
    found = []
    for name, processes in (("two", 2), ("two again", 2), ("one", 1)):
        changed = [*settings, 'training.precision="float32"', f"training.data_parallel={processes}"]
        cell = make_plan(*read_study(str(tiny_study), changed)).cells[0]
        store = Store(tmp_path / name)
        store.prepare()
        outcome = attempt(cell, store.folder)
        assert outcome.status == "done", f"{backend}: {outcome.message}"
        found.append(store.load(cell.id).arrays)
    two, again, one = found
    for key, array in two.items():
        assert np.array_equal(array, again[key])
        assert np.allclose(array, one[key], rtol=1e-3, atol=1e-4)
