import numpy as np
import pytest

from reports._results import Cell, Results
from reports.figures import spectrum


def tails(results):
    rows = spectrum.chart(results, "mlp-digits").to_dict()["datasets"].values()
    return [row for dataset in rows for row in dataset]


def test_the_dense_curve_counts_eigenvalues(results_file):
    results = Results.read(results_file(seeds=(0,)))
    name = results.spectra.query("source == 'dense_hessian'")["cell"].item()
    eigenvalues = results.cell(name).arrays["eigenvalues"]
    drawn = [row for row in tails(results) if row["cell"] == name]
    assert len(drawn) > 100
    for row in drawn:
        beyond = eigenvalues > row["size"] if row["side"] == "larger than x" else eigenvalues < -row["size"]
        assert row["fraction"] == pytest.approx(beyond.mean(), abs=1e-12)


def test_an_atom_at_zero_lowers_the_curve_and_hides_nothing(results_file):
    results = Results.read(results_file(seeds=(0,)))
    dense = [row for row in tails(results) if row["source"] == "Dense Hessian" and row["side"] == "larger than x"]
    assert max(row["fraction"] for row in dense) == pytest.approx(220 / 600)  # 360 zeros, 20 negative
    assert 0.0 < min(row["fraction"] for row in dense) < 0.01  # the grid ends at the largest eigenvalue


def test_slq_follows_the_dense_spectrum_at_large_eigenvalues(results_file):
    results = Results.read(results_file(seeds=(0,)))
    exact = results.cell(results.spectra.query("source == 'dense_hessian'")["cell"].item()).arrays["eigenvalues"]
    slq = [
        row for row in tails(results) if row["source"] == "SLQ" and row["side"] == "larger than x" and row["size"] > 1
    ]
    assert slq
    assert all(abs(row["fraction"] - (exact > row["size"]).mean()) < 0.02 for row in slq)


def test_only_the_valid_part_of_a_probe_counts_and_failed_probes_do_not():
    arrays = {
        "diagonal": np.array([[2.0, 9.0], [4.0, 9.0], [9.0, 9.0]]),
        "off_diagonal": np.array([[9.0], [9.0], [9.0]]),
        "num_steps": np.array([1, 1, 0]),
    }
    pooled = spectrum.measure_of(Cell("spectrum-x", arrays=arrays)).pooled()
    assert pooled.nodes.tolist() == [2.0, 4.0]
    assert pooled.quadrature_weights.tolist() == [0.5, 0.5]


@pytest.mark.parametrize("arrays", [{}, {"diagonal": np.ones((1, 1))}, {"eigenvalues": np.empty(0)}])
def test_a_cell_without_a_spectrum_has_no_measure(arrays):
    assert spectrum.measure_of(Cell("spectrum-x", arrays=arrays)) is None


def test_a_network_without_curvature_is_not_drawn(results_file):
    results = Results.read(results_file(seeds=(0,)))
    flat = {name: Cell(name, arrays={"eigenvalues": np.zeros(5)}) for name in results.spectra["cell"]}
    assert spectrum.chart(Results(**{**vars(results), "cells": flat}), "mlp-digits") is None
