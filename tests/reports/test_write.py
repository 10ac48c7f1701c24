import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from data.hdf5 import FileRefused
from reports import write
from reports._results import Results
from reports.write import file_stem, write_report

COMMAND = "espalier report runs/quickstart"


def names_under(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_report_is_a_page_tables_and_figures(results_file, tmp_path):
    folder = tmp_path / "new" / "report"
    page = write_report(results_file(), folder, command=COMMAND)
    assert page == folder / "index.html"
    tables = {
        f"tables/{name}.{suffix}" for name in ("methods", "limits", "cost", "cells") for suffix in ("csv", "md", "tex")
    }
    figures = {
        f"figures/{name}-mlp-digits.{suffix}"
        for name in ("accuracy", "limits", "sweep", "spectrum", "row_norms", "cost")
        for suffix in ("svg", "pdf", "png")
    }
    assert names_under(folder) == {"index.html"} | tables | figures


def test_equal_results_give_equal_bytes(results_file, tmp_path):
    path = results_file(seeds=(0, 1), methods=("lomp", "imp"))
    for name in ("first", "second"):
        write_report(path, tmp_path / name, command=COMMAND)
    for name in sorted(names_under(tmp_path / "first")):
        if not name.endswith(".pdf"):
            assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes(), name


def test_a_report_is_written_over_an_older_one(results_file, tmp_path):
    folder = tmp_path / "report"
    (folder / "tables").mkdir(parents=True)
    (folder / "index.html").write_text("old")
    (folder / "tables" / "notes.txt").write_text("the reader's own")
    write_report(results_file(analyses=False, seeds=(0,), methods=("lomp",)), folder, command=COMMAND)
    assert (folder / "index.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert (folder / "tables" / "notes.txt").read_text() == "the reader's own"


def test_a_page_that_cannot_be_written_leaves_the_old_one(results_file, tmp_path, monkeypatch):
    folder = tmp_path / "report"
    folder.mkdir()
    (folder / "index.html").write_text("old")

    def broken(*_):
        raise RuntimeError("broken")

    monkeypatch.setattr(write, "render_page", broken)
    with pytest.raises(RuntimeError, match="broken"):
        write_report(results_file(analyses=False, seeds=(0,), methods=("lomp",)), folder, command=COMMAND)
    assert (folder / "index.html").read_text() == "old"


@pytest.mark.parametrize(
    "changes",
    [
        {"methods": (), "analyses": False, "tasks": ()},
        {"methods": (), "analyses": False},
        {"methods": ("dense",), "seeds": (3,)},
        {"methods": ("random",), "seeds": (3,), "sparsities": (0.5,), "analyses": False},
        {"tasks": ("one", "two"), "networks": ("lomp", "rare_gems"), "seeds": (0, 1), "methods": ("dense", "lomp")},
    ],
)
def test_a_study_that_lacks_something_still_has_a_report(changes, results_file, tmp_path):
    path = results_file(**changes)
    page = write_report(path, tmp_path / "report", command=COMMAND).read_text(encoding="utf-8")
    results = Results.read(path)
    for task in results.tasks:
        assert f">{task}</h2>" in page
    if results.limits.empty and results.tasks:
        assert "There is no sparsity limit: none was asked for, or it has no result." in page
        assert "no Hessian spectrum is in the results" in page
    if not results.tasks:
        assert "This study has no task with a result yet." in page
    assert (pd.read_csv(tmp_path / "report" / "tables" / "methods.csv").empty) == results.requested.empty


def test_a_task_of_a_hostile_name_stays_in_the_folder(results_file, tmp_path):
    folder = tmp_path / "report"
    hostile = ("../../escape", "<script>alert(1)</script>", "-", "a b", "a_b")
    path = results_file(tasks=hostile, methods=("lomp",), sparsities=(0.9,), seeds=(0,), analyses=False)
    write_report(path, folder, command=COMMAND)
    assert names_under(tmp_path) == {"results.h5"} | {f"report/{name}" for name in names_under(folder)}
    assert len([name for name in names_under(folder) if name.startswith("figures/accuracy-")]) == 3 * len(hostile)


@pytest.mark.parametrize("name", ["mlp-digits", "fc5-cifar10", "x"])
def test_a_plain_name_is_its_own_stem(name):
    assert file_stem(name) == name


def test_stems_are_safe_and_different():
    names = ["a_b", "a b", "a-b", "a--b", "..", "", "/", "é", "x" * 300, "x" * 301, "A/../b"]
    stems = [file_stem(name) for name in names]
    assert len(set(stems)) == len(names)
    for stem in stems:
        assert stem
        assert stem == os.path.basename(stem)
        assert all(sign.isascii() and (sign.isalnum() or sign == "-") for sign in stem)
        assert len(stem) < 80


def test_the_page_of_a_task_shows_its_own_rows_only(results_file, tmp_path):
    path = results_file(tasks=("one", "two"), methods=("lomp",), seeds=(0,), analyses=False)
    page = write_report(path, tmp_path / "report", command=COMMAND).read_text(encoding="utf-8")
    results = Results.read(path)
    second = page.partition('id="task-two"')[2].partition("<footer")[0]
    assert all(cell in second for cell in results.only("two").requested["cell"])
    assert not any(cell in second for cell in results.only("one").requested["cell"])


def test_rows_of_an_unfinished_study_are_reported_and_the_rest_is_named(results_file, tmp_path, monkeypatch):
    path = results_file(seeds=(0, 1), analyses=False)
    whole = Results.read(path)
    lost = (whole.rows["method"] == "imp") & (whole.rows["seed"] == 1)
    monkeypatch.setattr(Results, "read", lambda _: dataclasses.replace(whole, rows=whole.rows[~lost]))
    page = write_report(path, tmp_path / "report", command=COMMAND).read_text(encoding="utf-8")
    assert (
        "IMP: no result for 5 of 10 networks (80% seed 1, 90% seed 1, 95% seed 1, 98% seed 1 and 99% seed 1)." in page
    )


def test_a_file_that_is_no_results_file_is_refused(tmp_path):
    with pytest.raises(FileRefused):
        write_report(tmp_path / "results.h5", tmp_path / "report", command=COMMAND)
    (tmp_path / "results.h5").write_text("no HDF5")
    with pytest.raises(FileRefused):
        write_report(tmp_path / "results.h5", tmp_path / "report", command=COMMAND)
    assert not (tmp_path / "report").exists()


def test_a_report_needs_no_torch():
    code = "import sys, reports.write, reports.terminal; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(write.__file__).parents[1]).returncode == 0
