import pytest

from reports._results import Results
from reports.tables import cost
from reports.tables._column import printed


def test_costs_are_means_over_seeds_and_print_in_readable_units(results_file):
    results = Results.read(results_file())
    frame = cost.build(results)
    row = frame[(frame["method"] == "imp") & (frame["sparsity"] == 0.9)]
    assert row["gradient_steps"].item() == 60_000
    assert row["num_trainings"].item() == 10
    assert row["train_flops"].item() == pytest.approx(7.2e11 * 10 * 0.55)
    assert row["wall_s"].item() == pytest.approx(25.1)
    assert printed(row, cost.COLUMNS)[0][1:] == ["IMP", "90%", "60,000", "10", "3.96 TFLOP", "25.1 s", "3"]
