from reports._results import Results
from reports.figures import cost


def test_one_panel_per_sparsity_asked_for_and_one_mark_per_method(results_file):
    specification = cost.chart(Results.read(results_file()), "mlp-digits").to_dict()
    (rows,) = specification["datasets"].values()
    assert specification["facet"]["sort"] == [f"Sparsity {s}%" for s in (80, 90, 95, 98, 99)]
    assert len(rows) == 5 * 6
    assert {row["method"] for row in rows} == {"lomp", "lomp_fine_tuned", "imp", "rare_gems", "smart_ratio", "random"}
    assert {row["gradient_steps"] for row in rows if row["method"] == "imp"} == {60_000.0}


def test_no_panel_columns_beyond_the_panels(results_file):
    results = Results.read(results_file(sparsities=(0.9,), seeds=(0,), analyses=False))
    assert cost.chart(results, "mlp-digits").to_dict()["columns"] == 1


def test_four_panels_make_a_square(results_file):
    results = Results.read(results_file(sparsities=(0.8, 0.9, 0.95, 0.98), seeds=(0,), analyses=False))
    assert cost.chart(results, "mlp-digits").to_dict()["columns"] == 2
