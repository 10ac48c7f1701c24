"""The tiny study, run once; what the tests of training and pruning build their networks from; three small networks."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from data import read_dataset
from suite.attempt import attempt
from suite.catalogue import analyses
from suite.curvature.operators import HessianOperator
from suite.curvature.pace import silent
from suite.datasets import training_splits
from suite.network import ModelSpec
from suite.networks.sources import UserNetwork
from suite.plan import Cell, Plan
from suite.planner import make_plan
from suite.problem import Problem
from suite.pruning.contract import Search
from suite.record import Record
from suite.store import Store
from suite.study import Recipe, read_study

SPEC = ModelSpec(name="mlp", options={"hidden": [8]}, version=1, input_shape=(6,), num_classes=3)


@pytest.fixture
def allow_tf32() -> Iterator[Callable[[bool], None]]:
    """Return a function that sets torch's two switches of TF32, which monkeypatch cannot put back."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32

    def switch(allowed: bool) -> None:
        matmul.allow_tf32 = cudnn.allow_tf32 = allowed

    yield switch
    matmul.allow_tf32, cudnn.allow_tf32 = before


@dataclass(frozen=True)
class Committed:
    """A study whose cells are all committed."""

    plan: Plan
    store: Store

    def cells(self, kind: str, **config: Any) -> list[Cell]:
        """Return the cells of a kind with these values in their configuration."""
        found = [cell for cell in self.plan.cells if cell.id.kind == kind]
        return [cell for cell in found if all(cell.config[key] == value for key, value in config.items())]

    def record(self, cell: Cell) -> Record:
        return self.store.load(cell.id)


def run_all(plan: Plan, folder: Path) -> Committed:
    store = Store(folder)
    store.prepare()
    for cell in plan.cells:
        outcome = attempt(cell, folder)
        assert outcome.status in ("done", "cached"), f"{cell.title}: {outcome.message}"
    return Committed(plan, store)


@pytest.fixture(scope="session")
def committed(tmp_path_factory: pytest.TempPathFactory, write_tiny_study: Callable[[Path], Path]) -> Committed:
    """The whole tiny study, and every analysis that is not in it, every cell committed. Never write to its folder."""
    study = write_tiny_study(tmp_path_factory.mktemp("study"))
    plan = make_plan(*read_study(str(study), [f"analyses={analyses()}"]))
    return run_all(plan, tmp_path_factory.mktemp("committed"))


@pytest.fixture
def user_network(
    committed: Committed, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[UserNetwork]:
    """The tiny study's plain dense network, as a user would bring it."""
    name = f"measured_net_{tmp_path.name}".replace("-", "_")
    layers = "nn.Flatten(), nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)"
    (tmp_path / f"{name}.py").write_text(f"from torch import nn\ndef build():\n    return nn.Sequential({layers})\n")
    monkeypatch.syspath_prepend(tmp_path)
    random = committed.cells("prune", method="random")[0]
    state = committed.store.load(random.inputs["dense"]).arrays_under("weights")
    torch.save({key: torch.from_numpy(np.array(array)) for key, array in state.items()}, tmp_path / "net.pt")
    with torch.random.fork_rng(devices=[]):  # a user's constructor draws from the global generator: put it back
        yield UserNetwork(f"{name}:build", tmp_path / "net.pt", tiny_data, "cpu", "float64")


@pytest.fixture(autouse=True)
def untouched_global_generator() -> Iterator[None]:
    """Fail every test whose code draws from, or seeds, torch's global generator."""
    before = torch.get_rng_state()
    yield
    assert torch.equal(torch.get_rng_state(), before), "the global generator was used"


@pytest.fixture
def recipe() -> Callable[..., Recipe]:
    """Return a function that makes recipes; what it is not told is plain SGD at a constant rate."""

    def make(**changes: Any) -> Recipe:
        plain: dict[str, Any] = {
            "epochs": 2,
            "batch_size": 32,
            "learning_rate": 0.1,
            "momentum": 0.0,
            "schedule": "constant",
        }
        return Recipe(**(plain | changes))

    return make


@pytest.fixture
def make_search(tiny_data: Path, recipe: Callable[..., Recipe]) -> Callable[..., Search]:
    """Return a function that makes what a method is given, with random tensors for trained ones."""

    def make(num_keep: int = 20, *, seed: int = 0, epochs: int = 3, **changes: Any) -> Search:
        problem = Problem.of(
            SPEC,
            training_splits(tiny_data, read_dataset(tiny_data).sha256, "cpu"),
            initialisation="signed_constant",
            seed=seed,
            device="cpu",
        )
        draw = torch.Generator().manual_seed(7)

        def trained() -> dict[str, torch.Tensor]:
            return {name: torch.randn(value.shape, generator=draw) for name, value in problem.state().items()}

        plain = recipe(epochs=epochs)
        values: dict[str, Any] = {
            "problem": problem,
            "num_keep": num_keep,
            "seed": seed,
            "recipe": plain,
            "fine_tune_recipe": plain.model_copy(update={"epochs": 5}),
            "initial": problem.state(),
            "dense": trained(),
            "rewind": trained(),
            "previous": None,
            "progress": silent,
        }
        return Search(**(values | changes))

    return make


Batches = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Network:
    """A small network with data, and its Hessian by another road than the operator's."""

    model: nn.Module
    names: tuple[str, ...]
    batches: Batches

    def operator(self, dtype: torch.dtype = torch.float64) -> HessianOperator:
        return HessianOperator(self.model, self.names, self.batches, dtype)

    def loss(self, vector: Tensor) -> Tensor:
        """Mean loss of all examples in one batch at a flat vector of prunable weights, float64."""
        state = {name: value.detach().double() for name, value in self.model.state_dict().items()}
        shapes = [state[name].shape for name in self.names]
        parts = torch.split(vector, [shape.numel() for shape in shapes])
        state |= {name: part.reshape(shape) for name, part, shape in zip(self.names, parts, shapes, strict=True)}
        inputs = torch.cat([inputs for inputs, _ in self.batches]).double()
        targets = torch.cat([targets for _, targets in self.batches])
        return functional.cross_entropy(functional_call(self.model, state, (inputs,)), targets)

    def point(self) -> Tensor:
        state = self.model.state_dict()
        return torch.cat([state[name].double().reshape(-1) for name in self.names])

    def gradient(self, vector: Tensor) -> Tensor:
        vector = vector.clone().requires_grad_()
        return torch.autograd.grad(self.loss(vector), vector)[0]

    def hessian(self) -> Tensor:
        self.model.eval()
        return torch.autograd.functional.hessian(self.loss, self.point())


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 3, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(3)
        self.block = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.head = nn.Linear(3, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        stem = functional.relu(self.norm(self.stem(inputs)))
        return self.head(functional.relu(stem + self.block(stem)).mean(dim=(2, 3)))


def _filled(model: nn.Module, generator: torch.Generator) -> nn.Module:
    """Draw parameters and running statistics from one generator, so that no test touches the global one."""
    for parameter in model.parameters():
        parameter.data = 0.5 * torch.randn(parameter.shape, generator=generator)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data = 1.0 + 0.2 * torch.randn(module.weight.shape, generator=generator)
            module.running_mean = 0.3 * torch.randn(module.running_mean.shape, generator=generator)
            module.running_var = 0.5 + torch.rand(module.running_var.shape, generator=generator)
    return model


def _network(model: nn.Module, shape: Sequence[int], names: Sequence[str], seed: int) -> Network:
    generator = torch.Generator().manual_seed(seed)
    _filled(model, generator)
    inputs = torch.randn((17, *shape), generator=generator)
    targets = torch.randint(0, 3, (17,), generator=generator)
    batches = [(inputs[begin : begin + 7], targets[begin : begin + 7]) for begin in (0, 7, 14)]
    return Network(model, tuple(names), batches)


@torch.random.fork_rng(devices=[])  # layers draw initial weights from the global generator
def mlp(seed: int = 1) -> Network:
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3))
    return _network(model, (5,), ("0.weight", "2.weight", "4.weight"), seed)


@torch.random.fork_rng(devices=[])
def cnn(seed: int = 2) -> Network:
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3, bias=False),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(12, 3),
    )
    return _network(model, (1, 6, 6), ("0.weight", "6.weight"), seed)


@torch.random.fork_rng(devices=[])
def residual(seed: int = 3) -> Network:
    return _network(Residual(), (1, 5, 5), ("stem.weight", "block.weight", "head.weight"), seed)


_BUILDERS: dict[str, Callable[[], Network]] = {"mlp": mlp, "cnn": cnn, "residual": residual}


@pytest.fixture(params=list(_BUILDERS))
def network(request: pytest.FixtureRequest) -> Network:
    return _BUILDERS[request.param]()


@pytest.fixture
def small_mlp() -> Network:
    return mlp()
