import dataclasses

import pytest

from reports._results import Results
from reports.figures import sweep


def with_limits(results, limit, value):
    values = results.limits["sparsity_limit"].mask(results.limits["limit"] == limit, value)
    return dataclasses.replace(results, limits=results.limits.assign(sparsity_limit=values))


def lines(results):
    datasets = sweep.chart(results, "mlp-digits").to_dict()["datasets"].values()
    return {row["line"]: row["sparsity"] for rows in datasets for row in rows if "is_measured" in row}


def test_lines_stand_at_the_mean_over_seeds_of_the_limits_at_the_tolerance_itself(results_file):
    results = Results.read(results_file())
    rows = results.limits.query("source == 'slq' and tolerance_factor == 1.0")
    means = rows.groupby("limit")["sparsity_limit"].mean()
    found = lines(results)
    assert set(found) == {
        "Predicted: Gaussian width",
        "Predicted: Statistical dimension",
        "Measured: One-shot",
    }
    assert found["Predicted: Gaussian width"] == pytest.approx(means["gaussian_width"])


@pytest.mark.parametrize(("value", "shown"), [(1.0, "not reached"), (0.998, "beyond 99.80%")])
def test_a_measured_limit_that_is_not_reached_stands_below_the_title(results_file, value, shown):
    results = Results.read(results_file(seeds=(0, 1)))
    title = str(sweep.chart(with_limits(results, "one_shot", value), "mlp-digits").to_dict()["title"])
    assert f"Measured: One-shot {shown}" in title
    assert ("Measured: One-shot" in lines(with_limits(results, "one_shot", value))) == (value < 1.0)
    assert "reached" not in str(sweep.chart(results, "mlp-digits").to_dict()["title"])


def test_limits_that_the_figure_does_not_draw_are_not_told_below_its_title(results_file):
    results = with_limits(Results.read(results_file(seeds=(0, 1))), "fine_tuned", 1.0)
    assert "reached" not in str(sweep.chart(results, "mlp-digits").to_dict()["title"])
