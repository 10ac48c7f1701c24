"""The contract of the folder: a figure that is added by a file is held against it the day it is added."""

import json

import pytest

from reports._extensions import extensions
from reports._results import Results
from reports.figures._render import render

FIGURES = extensions("reports.figures")
NEEDS_ANALYSES = {"limits", "sweep", "spectrum", "row_norms"}
STUDIES = {
    "complete": {},
    "several networks": {"networks": ("lomp", "imp"), "seeds": (0, 1)},
    "one seed, one method, one sparsity": {"seeds": (4,), "methods": ("lomp",), "sparsities": (0.9,)},
    "an unknown method": {"methods": ("dense", "lomp", "new_one", "other"), "seeds": (0,)},
    "everything removed": {"sparsities": (0.9, 1.0), "seeds": (0,), "rounds": False},
    "no analyses": {"seeds": (0, 1), "methods": ("dense", "imp"), "analyses": False},
}

pytestmark = pytest.mark.parametrize("name", list(FIGURES))


def fields_of(node):
    """Yield every field that an encoding of the specification names."""
    if isinstance(node, dict):
        if isinstance(node.get("field"), str):
            yield node["field"]
        for value in node.values():
            yield from fields_of(value)
    elif isinstance(node, list):
        for value in node:
            yield from fields_of(value)


def test_the_module_says_what_it_is(name):
    module = FIGURES[name]
    assert isinstance(module.ORDER, int)
    for text in (module.TITLE, module.CAPTION, module.ABSENT):
        assert isinstance(text, str)
        assert text.strip() == text != ""
    assert module.CAPTION.endswith(".")
    assert module.ABSENT.endswith(".")


@pytest.mark.parametrize("study", list(STUDIES))
def test_every_study_is_drawn_in_every_format(name, study, results_file):
    changes = STUDIES[study]
    chart = FIGURES[name].chart(Results.read(results_file(**changes)), "mlp-digits")
    if not changes.get("analyses", True) and name in NEEDS_ANALYSES:
        assert chart is None
        return
    drawing = render(chart)
    assert drawing.svg.startswith(b"<svg")
    assert drawing.pdf.startswith(b"%PDF")
    assert drawing.png.startswith(b"\x89PNG")
    assert b"NaN" not in drawing.svg
    assert b"http://" not in drawing.svg.replace(b"http://www.w3.org/", b"")
    assert "mlp-digits" in drawing.specification["description"]


def test_every_encoded_field_is_in_the_data(name, results_file):
    specification = FIGURES[name].chart(Results.read(results_file()), "mlp-digits").to_dict()
    columns = {column for rows in specification["datasets"].values() for row in rows for column in row}
    assert set(fields_of({key: value for key, value in specification.items() if key != "datasets"})) <= columns


def test_points_are_traced_to_cells_of_the_file(name, results_file):
    results = Results.read(results_file(seeds=(0, 1)))
    specification = FIGURES[name].chart(results, "mlp-digits").to_dict()
    rows = [row for rows in specification["datasets"].values() for row in rows]
    traced = {cell for row in rows for cell in row.get("cells", row.get("cell", "")).split(", ") if cell}
    assert traced
    assert traced <= set(results.cells)


def test_a_task_without_results_gives_no_chart(name, results_file):
    assert FIGURES[name].chart(Results.read(results_file(methods=(), analyses=False)), "mlp-digits") is None
    assert FIGURES[name].chart(Results.read(results_file(seeds=(0,))), "nowhere") is None


def test_each_task_is_drawn_from_its_own_rows(name, results_file):
    results = Results.read(results_file(tasks=("mlp-digits", "fc5-cifar10"), seeds=(0,)))
    drawn = json.dumps(FIGURES[name].chart(results, "fc5-cifar10").to_dict()["datasets"])
    own, other = (
        {cell for table in (here.rows, here.limits, here.row_norms, here.sweeps) for cell in table["cell"]}
        for here in (results.only("fc5-cifar10"), results.only("mlp-digits"))
    )
    assert any(cell in drawn for cell in own)
    assert not any(cell in drawn for cell in other)
