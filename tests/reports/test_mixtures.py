import dataclasses

from reports._mixtures import mixed_precisions
from reports._results import Results
from reports.page.provenance import environments
from reports.page.render import render_page
from tests.reports.test_terminal import printed


def trained(results: Results, *precisions: str) -> Results:
    """Return a study whose dense cells were trained in these precisions, in turn; "": it is not recorded."""
    names = sorted(name for name, cell in results.cells.items() if cell.kind == "dense")
    told = dict(zip(names, precisions, strict=True))
    cells = {
        name: dataclasses.replace(cell, environment={"host": "a", "training_precision": told[name]})
        if told.get(name)
        else cell
        for name, cell in results.cells.items()
    }
    return dataclasses.replace(results, cells=cells)


def test_a_study_of_two_precisions_says_so_on_the_page_and_in_the_terminal(results_file):
    mixed = trained(Results.read(results_file()), "float32", "bfloat16", "float32")
    line = mixed_precisions(mixed)
    assert "(1 in bfloat16, 2 in float32 cells)" in line
    assert line.count("\n") == 0
    assert 'training.precision = "float32"' in line
    assert "1 in bfloat16, 2 in float32 cells" in render_page(mixed, [], "")
    assert line in " ".join(printed(mixed).split())


def test_one_precision_or_none_recorded_is_no_mixture(results_file):
    plain = Results.read(results_file())
    assert mixed_precisions(plain) == ""
    assert mixed_precisions(trained(plain, "bfloat16", "bfloat16", "")) == ""
    assert "different precisions" not in render_page(plain, [], "")
    assert "different precisions" not in printed(plain)


def test_a_precision_alone_makes_no_other_environment(results_file):
    mixed = trained(Results.read(results_file()), "float32", "bfloat16", "float32")
    assert sum(environment.num_cells for environment in environments(mixed)) == len(mixed.cells)
    assert len(environments(mixed)) == 2  # the fixture's, and host "a"
