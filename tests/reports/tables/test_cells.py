import dataclasses

from reports._results import Results
from reports.tables import cells


def test_every_row_limit_and_spectrum_is_listed_with_its_cell(results_file):
    results = Results.read(results_file(tasks=("mlp-digits", "fc5-cifar10"), seeds=(0, 1)))
    frame = cells.build(results)
    assert len(frame) == len(results.requested) + len(results.limits) + len(results.spectra)
    every = [*results.requested["cell"], *results.limits["cell"], *results.spectra["cell"]]
    assert sorted(frame["cell"]) == sorted(every)
    assert frame["task"].drop_duplicates().tolist() == ["mlp-digits", "fc5-cifar10"]


def test_a_number_stands_beside_the_cell_it_came_from(results_file):
    results = Results.read(results_file(seeds=(0, 1)))
    frame = cells.build(results).set_index("cell")
    for row in results.requested.itertuples():
        assert frame.loc[row.cell, "test_accuracy"] == row.test_accuracy
        assert frame.loc[row.cell, "seed"] == row.seed


def test_what_a_limit_was_computed_from_is_said(results_file):
    found = set(cells.build(Results.read(results_file(seeds=(0,))))["result"])
    assert "limit: Gaussian width, SLQ, tolerance × 0.5" in found
    assert "limit: One-shot, Measured, tolerance × 2" in found
    assert "spectrum: Dense Hessian" in found


def test_a_limit_that_is_not_reached_says_so(results_file):
    results = Results.read(results_file(seeds=(0,)))
    values = results.limits["sparsity_limit"].mask(results.limits["limit"] == "one_shot", 1.0)
    found = set(
        cells.build(dataclasses.replace(results, limits=results.limits.assign(sparsity_limit=values)))["result"]
    )
    assert "limit: One-shot, Measured, tolerance × 2, not reached" in found
    assert "limit: Fine-tuned, Measured, tolerance × 2" in found
