import sys

from reports._extensions import extensions


def test_modules_are_found_by_file_in_the_order_they_ask_for(tmp_path, monkeypatch):
    folder = tmp_path / "fruits_for_a_test"
    folder.mkdir()
    for name, content in {
        "__init__": "",
        "pear": "ORDER = 2",
        "apple": "ORDER = 2",
        "quince": "ORDER = 1",
        "_shared": "raise RuntimeError",
    }.items():
        (folder / f"{name}.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    try:
        assert list(extensions("fruits_for_a_test")) == ["quince", "apple", "pear"]
    finally:
        for name in [name for name in sys.modules if name.startswith("fruits_for_a_test")]:
            del sys.modules[name]


def test_the_tables_and_figures_of_the_suite_are_all_found():
    assert list(extensions("reports.tables")) == ["methods", "limits", "cost", "cells"]
    assert list(extensions("reports.figures")) == ["accuracy", "limits", "sweep", "spectrum", "row_norms", "cost"]
