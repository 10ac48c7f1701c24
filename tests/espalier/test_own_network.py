"""`espalier limit` and `spectrum` on networks that espalier has never seen, held against the whole Hessian."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch import nn

from suite.curvature.dense import dense_hessian, eigendecomposition
from suite.curvature.quadrature import atoms
from suite.limits.exact import exact_delta_measure
from suite.limits.predict import predict
from suite.limits.removal import MagnitudeOrder
from suite.networks.sources import UserNetwork

Espalier = Callable[..., Any]
LIMITS = ("gaussian_width", "statistical_dimension")
NETWORKS = """
import torch
from torch import nn

def convolutional():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 10)
    )

class Block(nn.Module):
    \"\"\"Rows of the image are tokens: attention, then a small network, each around a residual.\"\"\"

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(8, 4)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True, dropout=0.1)
        self.norms = nn.ModuleList([nn.LayerNorm(4), nn.LayerNorm(4)])
        self.mix = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Dropout(0.1), nn.Linear(8, 4))
        self.head = nn.Linear(4, 10)

    def forward(self, images):
        tokens = self.embed(images.squeeze(1))
        normal = self.norms[0](tokens)
        tokens = tokens + self.attention(normal, normal, normal, need_weights=False)[0]
        tokens = tokens + self.mix(self.norms[1](tokens))
        return self.head(tokens.mean(dim=1))

def transformer():
    return Block()
"""
NUM_PRUNABLE = {"convolutional": 4 * 9 + 36 * 10, "transformer": 8 * 4 + 3 * 4 * 4 + 4 * 4 + 2 * 4 * 8 + 4 * 10}


def trained(build: Callable[[], nn.Module], inputs: torch.Tensor, targets: torch.Tensor) -> nn.Module:
    """A user's own few lines of training."""
    torch.manual_seed(0)
    model = build().train()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(100):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return model


@pytest.fixture
def own(working_folder: Path) -> Path:
    """A folder with a user's module, two files of trained weights, and data written by plain h5py."""
    from sklearn.datasets import load_digits

    images, targets = load_digits(return_X_y=True)
    images, targets = images[:150].reshape(-1, 1, 8, 8), targets[:150]
    with h5py.File("mine.h5", "w") as file:
        file["train/inputs"] = images.astype(np.float32) / 16
        file["train/targets"] = targets
    (working_folder / "mynets.py").write_text(NETWORKS)
    space: dict[str, Any] = {}
    exec(NETWORKS, space)  # not imported: the command shall be the first to do so
    for name in NUM_PRUNABLE:
        model = trained(space[name], torch.tensor(images / 16, dtype=torch.float32), torch.tensor(targets))
        torch.save(model.state_dict(), f"{name}.pt")
    return working_folder


def options(name: str, *more: object) -> list[object]:
    return ["--model", f"mynets:{name}", "--weights", f"{name}.pt", "--data", "mine.h5", *more]


def exact_limits(name: str, tolerance_nats: float) -> dict[str, float]:
    """The limits from the whole Hessian in float64 and its eigenvectors: no probes, no Lanczos."""
    source = UserNetwork(f"mynets:{name}", Path(f"{name}.pt"), Path("mine.h5"), "cpu", "float64")
    network = source.load()
    order = MagnitudeOrder.of(network.weights())
    spectrum = eigendecomposition(dense_hessian(network.hessian("float64")))
    eigenvalues = spectrum.eigenvalues.numpy()
    delta_measure = exact_delta_measure(eigenvalues, spectrum.eigenvectors.numpy(), order)
    found = predict(atoms(eigenvalues), order, tolerance_nats, delta_measure, "abs", resolution=0.0)
    return {each.limit: each.estimate.sparsity_limit for each in found if each.tolerance_factor == 1}


@pytest.mark.parametrize("name", ["convolutional", pytest.param("transformer", marks=pytest.mark.slow)])
def test_limits_agree_with_the_whole_hessian(name: str, own: Path, espalier: Espalier) -> None:
    arguments = options(name, "--steps", 120, "--json", "limit.json")
    answer = espalier("limit", *arguments)
    assert answer.code == 0, answer.err
    values = json.loads((own / "limit.json").read_text())
    assert set(values) == {
        *LIMITS,
        "mean_loss_nats",
        "accuracy",
        "loss_tolerance_nats",
        "num_prunable_weights",
        "num_matvecs",
        "curvature",
        "num_probes",
        "num_lanczos_steps",
        "num_examples",
        "seed",
        "restarts",
        "reissued",
        "threads",
        "precision",
        "rounding_bias",
        "command",
    }
    parts = {"sparsity_limit", "lower", "upper", "probe_standard_error", "at_half_tolerance", "at_double_tolerance"}
    parts |= {"budget"}
    assert all(set(values[limit]) == parts for limit in LIMITS)
    assert (values["num_prunable_weights"], values["restarts"]) == (NUM_PRUNABLE[name], 0)
    assert values["command"] == f"espalier limit {' '.join(map(str, arguments))}"
    assert 0 < values["loss_tolerance_nats"] < 1
    for limit, exact in exact_limits(name, values["loss_tolerance_nats"]).items():
        assert values[limit]["sparsity_limit"] == pytest.approx(exact, abs=0.02), limit
        row, errors = [line.split() for line in answer.out.splitlines() if line.startswith(f"{limit} ")]
        assert row[1] == f"{values[limit]['sparsity_limit']:.4f}"
        assert row[2] == errors[4] == f"{values[limit]['budget']['total']:.4f}"


def test_a_spectrum_is_told_and_written(own: Path, espalier: Espalier) -> None:
    answer = espalier("spectrum", *options("convolutional", "--steps", 20, "--probes", 2, "--json", "spectrum.json"))
    assert answer.code == 0, answer.err
    values = json.loads((own / "spectrum.json").read_text())
    assert [len(probe["nodes"]) for probe in values["probes"]] == [20, 20]
    assert values["num_matvecs"] == 40
    assert values["eigenvalue_min"] < values["eigenvalue_mean"] < values["eigenvalue_max"]
    assert f"eigenvalue_max: {values['eigenvalue_max']:.6g}" in answer.out
    assert "nodes" not in answer.out


@pytest.mark.slow
@pytest.mark.parametrize("command", ["limit", "spectrum"])
def test_two_workers_give_the_numbers_of_one(command: str, own: Path, espalier: Espalier) -> None:
    few = ("--probes", 3, "--steps", 12, "--threads", 1)
    for workers in (1, 2):
        path = f"{workers}.json"
        answer = espalier(command, *options("transformer", *few, "--workers", workers, "--json", path))
        assert answer.code == 0, answer.err
    one, two = (json.loads((own / f"{workers}.json").read_text()) for workers in (1, 2))
    assert one.pop("command") != two.pop("command")
    assert one == two
    assert one["threads"] == 1


def test_the_seed_and_the_tolerance_decide(own: Path, espalier: Espalier) -> None:
    def limit(*more: object) -> dict[str, Any]:
        few = ("--probes", 1, "--steps", 8)
        assert espalier("limit", *options("convolutional", *few, *more, "--json", "limit.json")).code == 0
        found: dict[str, Any] = json.loads((own / "limit.json").read_text())
        return found

    first = limit("--seed", 1, "--loss-tolerance", 0.05)
    assert limit("--seed", 1, "--loss-tolerance", 0.05) == first
    assert limit("--seed", 2, "--loss-tolerance", 0.05)["gaussian_width"] != first["gaussian_width"]
    assert first["loss_tolerance_nats"] == 0.05
    assert first["gaussian_width"]["probe_standard_error"] is None  # one probe has no spread
    double = limit("--seed", 1, "--loss-tolerance", 0.1)
    assert double["gaussian_width"]["sparsity_limit"] == first["gaussian_width"]["at_double_tolerance"]


@pytest.mark.parametrize("loss_tolerance", [0.01, 0.3])
def test_a_tolerance_is_met_against_the_whole_hessian(loss_tolerance: float, own: Path, espalier: Espalier) -> None:
    arguments = ("--tolerance", 0.02, "--loss-tolerance", loss_tolerance, "--json", "limit.json")
    answer = espalier("limit", *options("convolutional", *arguments))
    assert answer.code == 0, answer.err
    values = json.loads((own / "limit.json").read_text())
    assert values["converged"]
    assert values["tolerance"] == 0.02
    for limit, exact in exact_limits("convolutional", loss_tolerance).items():
        budget = values[limit]["budget"]
        squares = sum(budget[part] ** 2 for part in ("probe_standard_error", "truncation", "subset_bias"))
        assert budget["total"] == pytest.approx(squares**0.5)
        assert budget["total"] <= 0.02
        assert values[limit]["sparsity_limit"] == pytest.approx(exact, abs=0.04), limit
    last = values["checks"][-1]
    assert last["num_matvecs"] == values["num_matvecs"]
    assert "checks" not in answer.out
    assert "error from " in answer.out


def test_a_checkpoint_is_gone_on_with_and_changes_nothing(own: Path, espalier: Espalier) -> None:
    def limit(*more: object) -> dict[str, Any]:
        tolerant = ("--tolerance", 0.03, "--loss-tolerance", 0.05, "--json", "limit.json")
        answer = espalier("limit", *options("convolutional", *tolerant, *more))
        assert answer.code == 0, answer.err
        found: dict[str, Any] = json.loads((own / "limit.json").read_text())
        del found["command"]
        return found

    plain = limit()
    assert limit("--checkpoint", "saved") == plain
    saved = {path: path.stat().st_mtime_ns for path in (own / "saved").rglob("*") if path.is_file()}
    assert saved
    assert limit("--checkpoint", "saved") == plain
    assert {path: path.stat().st_mtime_ns for path in (own / "saved").rglob("*") if path.is_file()} == saved


def test_a_checkpoint_is_found_from_another_folder(
    own: Path, espalier: Espalier, monkeypatch: pytest.MonkeyPatch
) -> None:
    def limit(folder: str) -> dict[str, Any]:
        where = {"--weights": "convolutional.pt", "--data": "mine.h5", "--checkpoint": "saved", "--json": "limit.json"}
        paths = [word for option, name in where.items() for word in (option, Path(folder, name))]
        tolerant = ("--tolerance", 0.05, "--loss-tolerance", 0.05)
        answer = espalier("limit", "--model", "mynets:convolutional", *tolerant, *paths)
        assert answer.code == 0, answer.err
        found: dict[str, Any] = json.loads((own / "limit.json").read_text())
        del found["command"]
        return found

    first = limit(".")
    saved = {path: path.stat().st_mtime_ns for path in (own / "saved").rglob("*") if path.is_file()}
    assert saved
    (own / "elsewhere").mkdir()
    monkeypatch.chdir(own / "elsewhere")
    assert limit("..") == first
    assert {path: path.stat().st_mtime_ns for path in (own / "saved").rglob("*") if path.is_file()} == saved


def test_the_published_recipe_and_the_masks_stand_beside_our_limits(own: Path, espalier: Espalier) -> None:
    few = ("--probes", 1, "--steps", 24, "--loss-tolerance", 0.05)
    answer = espalier("limit", *options("convolutional", *few, "--faithful", "--masked", "--json", "limit.json"))
    assert answer.code == 0, answer.err
    values = json.loads((own / "limit.json").read_text())
    rows = [line.split()[0] for line in answer.out.splitlines() if line.strip()]
    assert rows[:5] == ["sparsity", *LIMITS, "gaussian_width_faithful", "masked_quadratic"]
    recipe, masked = values["gaussian_width_faithful"], values["masked_quadratic"]
    assert (recipe["num_probes"], recipe["num_lanczos_steps"]) == (1, 128)
    assert recipe["num_matvecs"] == 128 + 100  # a network with convolutions pays for rows
    assert 0 < recipe["sparsity_limit"] < 1
    assert masked["damping"] > 0
    assert masked["lower"] == masked["sparsity_limit"] < masked["upper"]
    assert masked["matrix"] == "positive part of the dense Hessian"
    assert masked["num_matvecs"] <= values["num_prunable_weights"] + 1


def test_a_spectrum_to_a_tolerance_with_rows(own: Path, espalier: Espalier) -> None:
    wanted = ("--tolerance", 0.05, "--loss-tolerance", 0.05, "--rows", "--json", "spectrum.json")
    answer = espalier("spectrum", *options("convolutional", *wanted))
    assert answer.code == 0, answer.err
    values = json.loads((own / "spectrum.json").read_text())
    assert values["converged"]
    assert all(values[limit]["budget"]["total"] <= 0.05 for limit in LIMITS)
    assert {probe["status"] for probe in values["probes"]} <= {"complete", "breakdown"}
    assert len(values["probes"]) == (values["num_probes"] if values["method"] == "lanczos" else 1)
    exact = dense_hessian(
        UserNetwork("mynets:convolutional", Path("convolutional.pt"), Path("mine.h5"), "cpu", "float64").build()
    ).numpy()
    rows = values["rows"]
    assert rows["l1_norm"] == pytest.approx(np.abs(exact[rows["index"]]).sum(axis=1), rel=1e-3, abs=1e-6)
    assert rows["magnitude"] == sorted(rows["magnitude"])
    assert "rows: num_zero_rows " in answer.out


def test_bfloat16_is_measured_and_told(own: Path, espalier: Espalier) -> None:
    few = ("--probes", 1, "--steps", 8, "--precision", "bfloat16", "--json", "spectrum.json")
    answer = espalier("spectrum", *options("convolutional", *few))
    assert answer.code == 0, answer.err
    values = json.loads((own / "spectrum.json").read_text())
    assert values["precision"] == "bfloat16"
    assert 1e-4 < values["rounding_bias"]["relative_error"] < 0.2
    assert f"relative_error {values['rounding_bias']['relative_error']:.6g}" in answer.out


def test_the_plan_is_told_before_the_run_and_once(own: Path, espalier: Espalier) -> None:
    answer = espalier("spectrum", *options("convolutional", "--steps", 4, "--probes", 2))
    (line,) = answer.err.splitlines()
    assert line.startswith("espalier: curvature: ")
    assert "150 examples per batch" in line


def test_products_that_are_not_finite_are_recorded(own: Path, espalier: Espalier) -> None:
    state = torch.load("convolutional.pt", weights_only=True)
    state["5.weight"] *= 1e30
    state["0.weight"] *= 1e15
    torch.save(state, "convolutional.pt")
    answer = espalier("spectrum", *options("convolutional", "--steps", 4, "--probes", 2, "--json", "spectrum.json"))
    assert answer.code == 1
    assert answer.err.splitlines()[-1].startswith("espalier: No product was finite. Likely: ")
    values = json.loads((own / "spectrum.json").read_text())
    assert (values["status"], values["eigenvalue_max"]) == ("nonfinite", None)
    assert [(probe["status"], probe["nodes"]) for probe in values["probes"]] == [("nonfinite", [])] * 2
