"""Limits to a tolerance in a study: what the spectrum cell searches, and who goes on from it."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from suite.attempt import attempt
from suite.catalogue import analyses
from suite.curvature.growing_runs import growing_inline_map
from suite.curvature.lanczos import Tridiagonal
from suite.errors import UserError
from suite.limits.adaptive import GRADIENTS_PER_PRODUCT
from suite.limits.bracket import LIMITS, Runs
from suite.limits.removal import MagnitudeOrder
from suite.plan import Cell, Plan
from suite.planner import make_plan
from suite.problem import as_state
from suite.record import Record
from suite.store import Store
from suite.study import read_study

TOLERANCE = 0.05
SETTINGS = (
    'methods=["lomp"]',
    "sparsities=[0.5]",
    f"analyses={analyses()}",
    'options={spectrum={dtype="float64"}, limit={tolerance=0.05, fine_tune_epochs=1, max_evaluations=12}}',
)


class Cut(Exception):
    """What ends a search in the middle."""


def planned(study: Path, *more: str) -> Plan:
    return make_plan(*read_study(str(study), [*SETTINGS, *more]))


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory, write_tiny_study: Callable[[Path], Path]) -> Plan:
    return planned(write_tiny_study(tmp_path_factory.mktemp("study")))


@pytest.fixture(scope="module")
def store(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Every analysis of one network with a tolerance, committed."""
    found = Store(tmp_path_factory.mktemp("searched"))
    found.prepare()
    for cell in plan.cells:
        outcome = attempt(cell, found.folder)
        assert outcome.status == "done", f"{cell.title}: {outcome.message}"
    return found


def the(plan: Plan, kind: str) -> Cell:
    (found,) = [cell for cell in plan.cells if cell.id.kind == kind]
    return found


def science(record: Record) -> dict[str, Any]:
    values: dict[str, Any] = {"metrics": repr(record.metrics), "cost": record.cost}
    return values | {name: array.tobytes() for name, array in record.arrays.items()}


def test_both_limits_come_within_the_tolerance_of_the_dense_hessian(plan: Plan, store: Store) -> None:
    found, exact = (store.load(the(plan, kind).id).metrics for kind in ("limit", "dense_hessian"))
    for limit in LIMITS:
        budget = {part: found[f"budget/{limit}/{part}"].value for part in ("probe_standard_error", "truncation")}
        assert found[f"budget/{limit}/subset_bias"].value == 0.0
        assert found[f"budget/{limit}/total"].value == pytest.approx(np.hypot(*budget.values()))
        assert 0 < found[f"budget/{limit}/total"].value <= TOLERANCE
        at = {factor: found[f"slq/{limit}/{factor}/sparsity_limit"].value for factor in ("0.5", "1", "2")}
        assert found[f"budget/{limit}/epsilon_sensitivity"].value == pytest.approx(0.5 * (at["2"] - at["0.5"]))
        assert abs(at["1"] - exact[f"dense_hessian/{limit}/1/sparsity_limit"].value) < TOLERANCE
    assert found["search/converged"].value == 1.0
    assert found["search/tolerance"].value == TOLERANCE


def test_the_stored_tridiagonals_give_the_stored_limits_and_the_effort(plan: Plan, store: Store) -> None:
    record = store.load(the(plan, "spectrum").id)
    arrays, metrics = record.arrays, record.metrics

    def run(diagonal: Any, off_diagonal: Any, residual_norm: Any, k: int) -> Tridiagonal:
        status: Any = "breakdown" if k == 72 else "complete"
        return Tridiagonal(diagonal[:k], off_diagonal[: k - 1], float(residual_norm), 1.0, status)

    parts = (arrays[name] for name in ("diagonal", "off_diagonal", "residual_norm", "num_steps"))
    removed = (arrays[f"removed/{name}"] for name in ("diagonal", "off_diagonal", "residual_norm"))
    state = as_state(store.load(the(plan, "spectrum").inputs["dense"]).arrays_under("weights"))
    order = MagnitudeOrder.of(np.concatenate([state[f"{layer}.weight"].double().numpy().ravel() for layer in (1, 3)]))
    runs = Runs([run(*each) for each in zip(*parts, strict=True)], run(*removed, 72), order, "abs")
    tolerance = metrics["loss_tolerance_nats"].value
    for limit in LIMITS:
        middle = 0.5 * sum(runs.limit(limit, tolerance, upper=upper) for upper in (False, True))
        assert metrics[f"slq/{limit}/1/sparsity_limit"].value == pytest.approx(middle, abs=1e-9)
    assert arrays["probe_index"].tolist() == list(range(int(metrics["search/num_probes"].value)))
    assert arrays["num_steps"].max() == metrics["search/num_lanczos_steps"].value
    assert metrics["search/num_examples"].value == 160
    assert record.cost["matvecs"] >= arrays["num_steps"].sum() + len(arrays["removed/diagonal"])
    assert record.cost["gradient_equivalents"] == GRADIENTS_PER_PRODUCT * record.cost["matvecs"]
    assert order.radius(int(arrays["removed/num_removed"])) == pytest.approx(float(arrays["removed/start_norm"]))


def test_restarts_are_counted_among_what_varies(plan: Plan, store: Store) -> None:
    timings = store.load(the(plan, "spectrum").id).timings
    assert (timings["restarts"], timings["reissued"]) == (0, 0)
    assert timings["probes_s"] > 0


def test_all_that_needs_the_spectrum_shares_one(plan: Plan, store: Store) -> None:
    spectrum = the(plan, "spectrum").id
    assert the(plan, "limit").inputs["spectrum"] == the(plan, "masked_limit").inputs["spectrum"] == spectrum
    limit = store.load(the(plan, "limit").id)
    assert limit.cost["matvecs"] == 0  # paid for by the spectrum
    assert {"measured/one_shot", "measured/fine_tuned"} <= set(limit.metrics)


class CutMap:
    """A map that can be told to keep its runs, and ends the search after so many of them."""

    def __init__(self, number: int) -> None:
        self.left, self.folder = number, Path()

    def kept(self, folder: Path) -> "CutMap":
        self.folder = folder
        return self

    def close(self) -> None:
        """Hold nothing between two calls."""

    def __call__(self, source: Any, requests: Sequence[Any]) -> Iterator[Any]:
        with growing_inline_map(self.folder) as growing:
            for result in growing(source, requests):
                yield result
                self.left -= 1
                if not self.left:
                    raise Cut


def test_a_search_that_is_cut_goes_on_and_leaves_nothing_behind(plan: Plan, store: Store, tmp_path: Path) -> None:
    cell, again = the(plan, "spectrum"), Store(tmp_path)
    again.prepare()
    dense = cell.inputs["dense"]
    again.path(dense).write_bytes(store.path(dense).read_bytes())
    assert "Cut" in attempt(cell, tmp_path, probe_map=CutMap(3)).message
    saved = {path: path.read_bytes() for path in again.checkpoint_path(cell.id).rglob("*.bin")}
    assert len({path.parent.name for path in saved}) >= 2  # runs
    again.prepare()  # as the next `espalier run` does
    assert all(path.read_bytes() == content for path, content in saved.items())
    whole = CutMap(10**6)
    assert attempt(cell, tmp_path, probe_map=whole).status == "done"
    assert science(again.load(cell.id)) == science(store.load(cell.id))
    assert sorted(path.name for path in (tmp_path / "cells").iterdir()) == sorted(
        again.path(each).name for each in (cell.id, dense)
    )


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("options.spectrum.num_probes=3", "options.spectrum.num_probes = 3 fixes what options.limit.tolerance = 0.05"),
        ("options.spectrum.num_lanczos_steps=9", "leave options.spectrum.num_lanczos_steps out"),
        ("options.limit.num_lanczos_steps=9", "options.limit: num_lanczos_steps = 9 fixes what .* one of the two"),
        ("options.limit.tolerance=1.0", "options.limit: tolerance = 1.0: .* less than 1"),
        ("options.limit.tolerance=0", "options.limit: tolerance = 0: .* greater than 0"),
    ],
)
def test_what_the_tolerance_chooses_cannot_be_fixed_as_well(tiny_study: Path, override: str, line: str) -> None:
    with pytest.raises(UserError, match=line):
        planned(tiny_study, override)


def test_a_tolerance_moves_what_rests_on_it_and_says_all_it_depends_on(tiny_study: Path) -> None:
    before, after = planned(tiny_study), planned(tiny_study, "options.limit.tolerance=0.04")
    pairs = zip(before.cells, after.cells, strict=True)
    assert {old.id.kind for old, new in pairs if old.id != new.id} == {"spectrum", "limit", "masked_limit"}
    config = the(after, "spectrum").config
    assert (config["num_probes"], config["num_lanczos_steps"]) == (None, None)
    assert config["search"] == {
        "tolerance": 0.04,
        "loss_tolerance_nats": None,
        "curvature": "abs",
        "max_num_lanczos_steps": 512,
        "max_num_probes": 64,
        "version": 2,
    }


def test_a_fixed_effort_says_nothing_of_a_search(committed: Any) -> None:
    (cell,) = committed.cells("spectrum")
    assert "search" not in cell.config
