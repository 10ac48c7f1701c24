from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from suite.cells._context import Context
from suite.cells.spectrum import Config, run, stored_measure, tridiagonal_arrays
from suite.curvature.lanczos import Tridiagonal
from suite.curvature.slq import ProbeResult, inline_map
from suite.plan import Cell


@pytest.fixture
def cell(committed: Any) -> Any:
    (found,) = committed.cells("spectrum")
    return found


def run_again(committed: Any, cell: Cell, probe_map: Any = inline_map, **changes: Any) -> Any:
    paths = {role: (cell_id, committed.store.path(cell_id)) for role, cell_id in cell.inputs.items()}
    context = Context({"data": Path(cell.places["data"])}, paths, probe_map)
    return run(Config.model_validate(cell.config | changes, strict=False), {}, context)


def test_all_steps_find_the_ends_of_the_exact_spectrum(committed: Any, cell: Cell) -> None:
    exact = committed.record(committed.cells("dense_hessian")[0]).arrays["eigenvalues"]
    metrics = committed.record(cell).metrics
    assert metrics["eigenvalue_max"].value == pytest.approx(exact.max(), rel=1e-10)
    assert metrics["eigenvalue_min"].value == pytest.approx(exact.min(), abs=1e-9 * exact.max())
    error = metrics["eigenvalue_mean_standard_error"].value
    assert abs(metrics["eigenvalue_mean"].value - exact.mean()) < 4 * error + 1e-12


def test_it_does_not_matter_who_runs_the_probes_and_when(committed: Any, cell: Cell) -> None:
    def backwards(source: Any, requests: Any) -> Any:
        return reversed([result for request in requests for result in inline_map(source, [request])])

    again = run_again(committed, cell, backwards).arrays
    stored = committed.record(cell).arrays
    assert all(np.array_equal(stored[name], again[name]) for name in stored)


def test_more_probes_leave_the_first_ones_alone(committed: Any, cell: Cell) -> None:
    more = run_again(committed, cell, num_probes=6)
    stored = committed.record(cell).arrays
    assert np.array_equal(more.arrays["diagonal"][:4], stored["diagonal"])
    assert more.cost["matvecs"] == more.arrays["num_steps"].sum()


def test_single_precision_agrees_to_single_precision(committed: Any, cell: Cell) -> None:
    single = run_again(committed, cell, dtype="float32", num_lanczos_steps=10)
    double = run_again(committed, cell, dtype="float64", num_lanczos_steps=10)
    largest = double.metrics["eigenvalue_max"].value
    assert single.metrics["eigenvalue_max"].value == pytest.approx(largest, rel=1e-4)


def test_restarts_are_counted_among_what_varies(committed: Any, cell: Cell) -> None:
    def lossy(source: Any, requests: Any) -> Any:
        return (replace(result, restarts=2, reissued=1) for result in inline_map(source, requests))

    record = run_again(committed, cell, lossy)
    assert record.timings["restarts"] == 8
    assert record.timings["reissued"] == 4
    assert "restarts" not in record.cost


def result(index: int, diagonal: list[float], off_diagonal: list[float], status: Any = "complete") -> ProbeResult:
    parts = {"diagonal": np.array(diagonal), "off_diagonal": np.array(off_diagonal)}
    return ProbeResult(index, 3, Tridiagonal(**parts, residual_norm=0.0, start_norm=1.0, status=status), 0.1)


def test_tridiagonals_of_different_lengths_come_back() -> None:
    arrays = tridiagonal_arrays([result(0, [1.0, 2.0, 3.0], [0.5, 0.25]), result(1, [4.0], [])])
    assert arrays["num_steps"].tolist() == [3, 1]
    assert arrays["diagonal"].tolist() == [[1, 2, 3], [4, 0, 0]]
    assert arrays["probe_seed"].tolist() == [3, 3]
    measure = stored_measure(arrays)
    exact = np.linalg.eigvalsh(np.array([[1, 0.5, 0], [0.5, 2, 0.25], [0, 0.25, 3]]))
    assert np.allclose(np.sort(measure.quadratures[0].nodes), exact)
    assert measure.quadratures[1].nodes.tolist() == [4.0]


def test_a_product_that_is_not_finite_is_a_status(committed: Any, cell: Cell) -> None:
    def broken(source: Any, requests: Any) -> Any:
        return (result(request.index, [], [], "nonfinite") for request in requests)

    record = run_again(committed, cell, broken)
    assert record.status == "nonfinite"
    assert record.metrics == {}
