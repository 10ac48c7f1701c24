"""The contract of the folder: a table that is added by a file is held against it the day it is added."""

import csv
import io

import pandas as pd
import pytest

from reports._extensions import extensions
from reports._results import Results
from reports.tables._column import Column, printed
from reports.tables._latex import to_latex
from reports.tables._markdown import to_markdown

TABLES = extensions("reports.tables")
STUDIES = {
    "complete": {},
    "several tasks and networks": {"tasks": ("mlp-digits", "fc5-cifar10"), "networks": ("lomp", "imp")},
    "one seed, one method": {"seeds": (4,), "methods": ("lomp",)},
    "no analyses": {"analyses": False},
    "nothing": {"methods": (), "analyses": False},
}

pytestmark = pytest.mark.parametrize("name", list(TABLES))


def test_the_module_says_what_it_is(name):
    module = TABLES[name]
    assert isinstance(module.ORDER, int)
    for text in (module.TITLE, module.CAPTION, module.ABSENT):
        assert isinstance(text, str)
        assert text.strip() == text != ""
    assert module.CAPTION.endswith(".")
    assert module.ABSENT.endswith(".")
    assert all(isinstance(column, Column) for column in module.COLUMNS)
    assert module.COLUMNS[0].heading == "Task"


@pytest.mark.parametrize("study", list(STUDIES))
def test_every_study_gives_a_frame_that_prints(name, study, results_file):
    module, results = TABLES[name], Results.read(results_file(**STUDIES[study]))
    frame = module.build(results)
    assert isinstance(frame, pd.DataFrame)
    for column in module.COLUMNS:
        assert {column.sort_by, column.traced_to or column.sort_by} <= set(frame)
    assert frame.empty == (study == "nothing" or (study == "no analyses" and name == "limits"))
    texts = [text for row in printed(frame, module.COLUMNS) for text in row]
    assert all(text and "nan" not in text.lower() and "None" not in text for text in texts)
    assert set(frame["task"]) <= set(results.tasks)


def test_every_number_is_traced_to_cells_of_the_file(name, results_file):
    module, results = TABLES[name], Results.read(results_file(seeds=(0, 1)))
    frame = module.build(results)
    for column in {column.traced_to for column in module.COLUMNS if column.traced_to}:
        names = {cell for cells in frame[column] for cell in cells.split()}
        assert names
        assert names <= set(results.cells)


def test_the_csv_file_keeps_every_number(name, results_file):
    frame = TABLES[name].build(Results.read(results_file(seeds=(0, 1))))
    rows = list(csv.DictReader(io.StringIO(frame.to_csv(index=False))))
    assert len(rows) == len(frame)
    numeric = frame.select_dtypes("number").columns
    assert len(numeric) > 2
    for column in numeric:
        written = [float(row[column]) if row[column] else None for row in rows]
        assert written == [None if pd.isna(value) else float(value) for value in frame[column]]


def test_markdown_and_latex_have_one_line_per_row(name, results_file):
    module = TABLES[name]
    frame = module.build(Results.read(results_file(seeds=(0, 1))))
    markdown = to_markdown(frame, module.COLUMNS, module.TITLE, module.CAPTION)
    assert sum(line.startswith("|") for line in markdown.splitlines()) == len(frame) + 2
    latex = to_latex(frame, module.COLUMNS, module.TITLE, module.CAPTION, name)
    assert sum(line.endswith(r"\\") for line in latex.splitlines()) == len(frame) + 1
