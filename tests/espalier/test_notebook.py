"""A network in memory: what a notebook calls and shows."""

import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import espalier
from suite.curvature.dense import dense_hessian, eigendecomposition
from suite.errors import UserError
from suite.networks.sources import MemoryNetwork

LIMITS = ("gaussian_width", "statistical_dimension")


class Tags(HTMLParser):
    """Collects tags and addresses, and fails on one that is closed out of turn."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.seen.append(tag)
        assert not [value for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def bunch() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A small trained network, left in training mode, with its data."""
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randn((300, 6), generator=draw)
    targets = (inputs[:, 0] > 0).long() + (inputs[:, 1] > 0).long()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.2), nn.Tanh(), nn.Linear(8, 3))
        optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
        for _ in range(150):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(inputs), targets).backward()
            optimiser.step()
    return model.train(), inputs, targets


@pytest.fixture(scope="module")
def found(bunch: tuple[nn.Module, torch.Tensor, torch.Tensor]) -> espalier.Measured:
    return espalier.limit(*bunch, tolerance=0.002, precision="float64")


def test_the_model_is_left_as_it_was(bunch: tuple[nn.Module, torch.Tensor, torch.Tensor]) -> None:
    model = bunch[0]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    espalier.spectrum(*bunch, probes=1, steps=2)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is not None or parameter.requires_grad for parameter in model.parameters())


def test_limits_come_with_their_errors_and_are_json(found: espalier.Measured) -> None:
    assert json.loads(json.dumps(found.values, allow_nan=False)) == found.values
    for limit in LIMITS:
        assert 0 < found[limit]["sparsity_limit"] < 1
        assert found[limit]["budget"]["total"] <= 0.02


def test_the_measure_is_that_of_the_whole_hessian(
    found: espalier.Measured, bunch: tuple[nn.Module, torch.Tensor, torch.Tensor]
) -> None:
    spectrum = eigendecomposition(dense_hessian(MemoryNetwork.of(*bunch, "float64").build()))
    mean, _ = found.measure.integrate(lambda nodes: nodes)
    assert found["method"] == "dense"  # 72 weights
    assert mean == pytest.approx(float(spectrum.eigenvalues.mean()), rel=1e-9)


def test_a_notebook_shows_a_table_and_a_plot_that_refer_to_nothing(found: espalier.Measured) -> None:
    text = found._repr_html_()
    tags = Tags()
    tags.feed(text)
    assert not tags.open
    assert {"table", "svg", "path"} <= set(tags.seen)
    assert f"{100 * found['statistical_dimension']['sparsity_limit']:.2f}%" in text
    assert "Gaussian width (published)" in text


def test_a_spectrum_has_a_plot_and_no_table(bunch: tuple[nn.Module, torch.Tensor, torch.Tensor]) -> None:
    shown = espalier.spectrum(*bunch, probes=2, steps=10)
    tags = Tags()
    tags.feed(shown._repr_html_())
    assert "table" not in tags.seen
    assert "svg" in tags.seen
    assert len(shown["probes"]) == 2
    assert "\nprobes:" not in repr(shown)
    assert f"eigenvalue_max: {shown['eigenvalue_max']}" in repr(shown)


def test_without_the_reports_extra_the_numbers_are_still_shown(
    found: espalier.Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "reports.figures.spectrum", None)
    text = found._repr_html_()
    assert "<table>" in text
    assert "reports extra" in text


INPUTS, TARGETS = torch.zeros((200, 6)), torch.arange(200) % 3


def spoilt(value: float) -> torch.Tensor:
    inputs = INPUTS.double()
    inputs[7, 2] = inputs[9, 0] = value
    return inputs


@pytest.mark.parametrize(
    ("model", "inputs", "targets", "line"),
    [
        (nn.ReLU(), INPUTS, TARGETS, "ReLU has no prunable weights."),
        (nn.Linear(7, 3), INPUTS, TARGETS, "Linear does not take inputs of shape (6,)"),
        (nn.Linear(6, 2), INPUTS, TARGETS, "Linear returned (2, 2) for 2 inputs."),
        (nn.Linear(6, 3), INPUTS, TARGETS[:9], "inputs have shape (200, 6) and targets (9,)."),
        (nn.Linear(6, 3), INPUTS[:, 0], TARGETS, "inputs have shape (200,)"),
        (nn.Linear(6, 3), INPUTS, TARGETS.float(), "targets are torch.float32, from 0."),
        (nn.Linear(6, 3), INPUTS, TARGETS - 1, "targets are torch.int64, from -1."),
        (nn.Linear(6, 3), INPUTS.numpy(), TARGETS.numpy()[:9], "inputs have shape (200, 6) and targets (9,)."),
        (nn.Linear(6, 3), INPUTS, np.eye(3)[TARGETS], "inputs have shape (200, 6) and targets (200, 3)."),
        (nn.Linear(6, 3), INPUTS, TARGETS.numpy() * 1.0, "targets are torch.float64, from 0."),
        (nn.Linear(6, 3), INPUTS, TARGETS.numpy().astype(np.uint64) - 1, "targets are torch.uint64, from -1."),
        (
            nn.Linear(6, 3),
            {"x": INPUTS},
            TARGETS,
            "inputs are dict. Expected: a torch tensor, a numpy array or a list.",
        ),
        (nn.Linear(6, 3), INPUTS, "targets.npy", "targets are str. Expected: a torch tensor, a numpy array or a list."),
        (nn.Linear(6, 3), [[0.0] * 6, [0.0] * 5], [0, 1], "inputs cannot be made a tensor: "),
        (nn.Linear(6, 3), INPUTS, np.array(["cat", "dog"]), "targets cannot be made a tensor: "),
        (
            nn.Linear(6, 3),
            spoilt(math.nan),
            TARGETS,
            "inputs hold 2 values that are not finite in float32 (the first at (7, 2)). Expected: finite numbers.",
        ),
        (nn.Linear(6, 3), spoilt(-math.inf).numpy(), TARGETS, "inputs hold 2 values that are not finite in float32"),
        (nn.Linear(6, 3), spoilt(1e300), TARGETS, "inputs hold 2 values that are not finite in float32"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(model: nn.Module, inputs: Any, targets: Any, line: str) -> None:
    with pytest.raises(UserError) as caught:
        espalier.limit(model, inputs, targets)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


def unwritable(array: np.ndarray) -> np.ndarray:
    array.setflags(write=False)
    return array


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "given",
    [
        lambda inputs, targets: (inputs.numpy(), targets.numpy()),
        lambda inputs, targets: (inputs.double().numpy(), targets.numpy().astype(np.uint16)),
        lambda inputs, targets: (inputs.tolist(), targets.tolist()),
        lambda inputs, targets: (list(inputs), tuple(targets)),
        lambda inputs, targets: (inputs.numpy().astype(">f4"), targets.numpy().astype(">i8")),
        lambda inputs, targets: (unwritable(inputs.numpy().copy()), unwritable(targets.numpy().copy())),
        lambda inputs, targets: (inputs.flip(0).numpy()[::-1], targets.flip(0).numpy()[::-1]),
    ],
    ids=["arrays", "double and uint16", "lists", "lists of tensors", "big endian", "unwritable", "backwards"],
)
def test_arrays_and_lists_are_taken_as_tensors_are(
    given: Callable[..., tuple[Any, Any]], bunch: tuple[nn.Module, torch.Tensor, torch.Tensor]
) -> None:
    model, inputs, targets = bunch
    found = espalier.spectrum(model, *given(inputs, targets), probes=1, steps=4)
    assert found["eigenvalue_max"] == espalier.spectrum(*bunch, probes=1, steps=4)["eigenvalue_max"]


@pytest.mark.parametrize(
    ("options", "line"),
    [({"precision": "half"}, "precision 'half' is unknown."), ({"tolerance": 2.0}, "tolerance=2.0")],
)
def test_an_option_that_cannot_be(options: dict[str, object], line: str) -> None:
    with torch.random.fork_rng(devices=[]), pytest.raises(UserError) as caught:
        espalier.limit(nn.Linear(6, 3), torch.randn(200, 6), TARGETS, **options)  # type: ignore[arg-type]
    assert str(caught.value).startswith(line)


class Shifting(nn.Linear):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return super().forward(inputs.sub_(0.1))


def test_inputs_are_left_as_they_were_by_a_network_that_changes_them() -> None:
    inputs = torch.zeros(200, 6)
    with torch.random.fork_rng(devices=[]):
        model = Shifting(6, 3)
    with pytest.raises(UserError, match=r"^Shifting changes its inputs in place"):
        espalier.limit(model, inputs, TARGETS)
    assert not inputs.any()


def test_import_is_light() -> None:
    program = "import sys, espalier; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_notebook_shows_the_published_recipe_and_the_masks_as_well(
    bunch: tuple[nn.Module, torch.Tensor, torch.Tensor],
) -> None:
    shown = espalier.limit(*bunch, tolerance=0.05, faithful=True, masked=True)
    assert json.loads(json.dumps(shown.values, allow_nan=False)) == shown.values
    text = shown._repr_html_()
    assert "Gaussian width, published numerics" in text
    assert "Quadratic model, actual mask" in text
    assert "rounding error of a product" in text
    assert "solves" not in repr(shown)


@pytest.mark.parametrize("measure", [espalier.limit, espalier.spectrum])
def test_a_tolerance_is_not_promised_in_bfloat16(
    bunch: tuple[nn.Module, torch.Tensor, torch.Tensor], measure: Any
) -> None:
    with pytest.raises(ValueError, match=r"tolerance=0.05 is not known to be reached with bfloat16 products"):
        measure(*bunch, tolerance=0.05, precision="bfloat16")


def test_a_spectrum_to_a_tolerance_with_rows(bunch: tuple[nn.Module, torch.Tensor, torch.Tensor]) -> None:
    shown = espalier.spectrum(*bunch, tolerance=0.05, rows=True)
    assert shown["statistical_dimension"]["budget"]["total"] <= 0.05
    assert len(shown["rows"]["l1_norm"]) == 72
    assert "<table>" in shown._repr_html_()


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"probes": 0}, "probes=0 is too small. Expected: at least 1."),
        ({"steps": 0}, "steps=0 is too small. Expected: at least 1."),
        ({"tolerance": 0.1, "steps": 8}, "tolerance=0.1 chooses what steps=8 fixes. Expected: one of the two."),
    ],
)
def test_an_effort_that_is_none_is_refused(
    options: dict[str, Any], line: str, bunch: tuple[nn.Module, torch.Tensor, torch.Tensor]
) -> None:
    with pytest.raises(ValueError, match=re.escape(line)):
        espalier.spectrum(*bunch, **options)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_a_loss_tolerance_that_is_none_is_refused(
    value: float, bunch: tuple[nn.Module, torch.Tensor, torch.Tensor]
) -> None:
    with pytest.raises(ValueError, match=re.escape(f"loss_tolerance_nats={value} is no tolerance")):
        espalier.limit(*bunch, loss_tolerance_nats=value)


def test_a_search_of_a_network_in_memory_keeps_its_runs() -> None:
    """Too many weights for the dense Hessian to take over: the spectrum is that of the probes of the search."""
    draw = torch.Generator().manual_seed(0)
    inputs, targets = torch.randn((400, 40), generator=draw), torch.randint(0, 3, (400,), generator=draw)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(40, 110), nn.Tanh(), nn.Linear(110, 3))
    found = espalier.spectrum(model, inputs, targets, tolerance=0.05)
    assert found["method"] == "lanczos"
    assert len(found["probes"]) == found["num_probes"]
    assert all(len(each["nodes"]) == found["num_lanczos_steps"] for each in found["probes"])
