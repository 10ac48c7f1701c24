import dataclasses

import h5py

from data.hdf5 import write_sealed
from reports._answer import answer
from reports._notices import notices
from reports._results import Results
from reports.page.render import render_page
from reports.write import write_report
from tests.reports.test_terminal import printed


def lacking(path, num_planned, *broken):
    """Return the results of a file of which more cells were planned, and some met numbers that are not finite."""
    with h5py.File(path) as file:
        content = {name: file[name] for name in file}

        def build(new):
            for name, value in file.attrs.items():
                if name in ("schema", "study", "command"):
                    new.attrs[name] = value
            new.attrs["num_planned"] = num_planned
            for name in content:
                file.copy(name, new)
            for number, cell in enumerate(new["cells"].values()):
                cell.attrs["status"] = "nonfinite" if number in broken else "ok"

        write_sealed(path.with_name("lacking.h5"), build)
    return Results.read(path.with_name("lacking.h5"))


def test_cells_without_a_result_are_counted_and_it_is_said_where_to_look(results_file):
    path = results_file(methods=("dense", "lomp"), seeds=(0,), analyses=False)
    num_cells = len(Results.read(path).cells)
    results = lacking(path, num_cells + 3)
    (line,) = notices(results)
    assert line == (
        f"3 of {num_cells + 3} cells have no result: espalier status DIR says whether they failed, "
        "espalier logs DIR why."
    )
    assert line in render_page(results, [], "")
    assert " ".join(printed(results).split()).startswith(line)


def test_a_study_with_all_its_cells_has_no_notice_and_neither_has_an_older_file(results_file):
    path = results_file(methods=("dense", "lomp"), seeds=(0,), analyses=False)
    assert notices(Results.read(path)) == []  # it does not say how many were planned
    assert notices(lacking(path, len(Results.read(path).cells))) == []


def test_cells_whose_numbers_are_not_finite_are_counted(results_file):
    path = results_file(methods=("dense", "lomp"), seeds=(0,), analyses=False)
    num_cells = len(Results.read(path).cells)
    (line,) = notices(lacking(path, num_cells, 0, 2))
    assert line == f"2 of {num_cells} cells with a result met numbers that are not finite, and fill no table."


def smoked(results):
    return dataclasses.replace(results, study={**results.study, "smoke_of": "quickstart"})


def test_a_smoke_has_a_banner_and_no_finding(results_file, tmp_path, monkeypatch):
    path = results_file(seeds=(0,))
    results = smoked(Results.read(path))
    assert answer(results, "mlp-digits").sentences == ()
    banner = (
        "A smoke of quickstart: a few steps on generated data. It shows that cells run; its numbers mean nothing, "
        "and nothing is concluded from them."
    )
    assert notices(results) == [banner]
    text = " ".join(printed(results).split())
    assert text.startswith(banner)
    assert "accuracy:" not in text.removeprefix(banner).replace("quickstart: test accuracy", "")
    monkeypatch.setattr(Results, "read", lambda _: results)
    page = write_report(path, tmp_path / "report", command="espalier report").read_text(encoding="utf-8")
    assert page.count(banner) == 1
    assert '<p class="headline">' not in page
    assert page.index(banner) < page.index("mlp-digits</h2>")


def test_what_a_smoke_lacks_is_still_told(results_file):
    results = smoked(Results.read(results_file(seeds=(0,), methods=("dense", "lomp"), analyses=False)))
    results = dataclasses.replace(results, rows=results.rows[results.rows["method"] == "dense"])
    (sentence,) = answer(results, "mlp-digits").sentences
    assert sentence.startswith("LOMP: no result for 5 of 5 networks")
