import json

import h5py
import numpy as np
import pytest

from data.hdf5 import FileRefused, write_array, write_sealed, write_text, write_texts
from reports._results import Cell, Results, names_in
from reports._schema import LIMITS, ROW_NORMS, ROWS, SPECTRA, SWEEPS, UnreadableResults, records


def write_minimal(path, schema="espalier-results/1", study="{}", rows=None):
    def build(file: h5py.File) -> None:
        file.attrs["schema"] = schema
        file.attrs["study"] = "minimal"
        file.attrs["command"] = "espalier run minimal"
        write_text(file, "study", study)
        if rows is not None:
            group = file.create_group("table/rows")
            for column, values in rows.items():
                if isinstance(values[0], str):
                    write_texts(group, column, values)
                else:
                    write_array(group, column, np.array(values))

    write_sealed(path, build)
    return path


def one_row():
    texts = {column: ["x"] for column, kind in ROWS.items() if kind == "str"}
    return {column: texts.get(column, [1.0 if kind == "float64" else 1]) for column, kind in ROWS.items()}


def test_every_row_of_the_study_is_read(results_file):
    results = Results.read(results_file())
    # per seed: 1 dense, 6 methods at 5 sparsities, 20 rounds of IMP
    assert len(results.rows) == 3 * (1 + 6 * 5 + 20)
    assert len(results.requested) == 3 * (1 + 6 * 5)
    # per seed: 3 tolerances, 2 predictors from 2 sources, 2 measured by loss
    assert len(results.limits) == 3 * 3 * (2 * 2 + 2)
    assert len(results.spectra) == 3 * 2
    assert (results.name, results.command) == ("quickstart", "espalier run quickstart --workers 4")


def test_columns_have_the_types_of_the_schema(results_file):
    results = Results.read(results_file(seeds=(0,)))
    for frame, schema in (
        (results.rows, ROWS),
        (results.limits, LIMITS),
        (results.spectra, SPECTRA),
        (results.row_norms, ROW_NORMS),
        (results.sweeps, SWEEPS),
    ):
        assert {column: str(kind) for column, kind in frame.dtypes.items()} == dict(schema)


def test_a_file_without_tables_and_cells_reads_as_empty_tables(tmp_path):
    results = Results.read(write_minimal(tmp_path / "results.h5"))
    assert results.rows.empty
    assert list(results.rows) == list(ROWS)
    assert list(results.limits) == list(LIMITS)
    assert list(results.spectra) == list(SPECTRA)
    assert results.tasks == []
    assert results.cells == {}


def test_curves_and_arrays_are_read_only_where_a_figure_needs_them(results_file):
    results = Results.read(results_file(seeds=(0,)))
    of_limits, of_spectra = set(results.limits["cell"]), set(results.spectra["cell"])
    of_rows = set(results.row_norms["cell"])
    measured = {name for name in of_limits if name.startswith("limit-")}
    assert {name for name, cell in results.cells.items() if cell.curves} == measured | set(results.sweeps["cell"])
    assert {name for name, cell in results.cells.items() if cell.arrays} == of_spectra | of_rows
    arrays = [results.cell(name).arrays for name in of_spectra]
    assert sorted(sorted(of_one) for of_one in arrays) == [
        ["diagonal", "num_steps", "off_diagonal", "probe_index"],
        ["eigenvalues"],
    ]


def test_a_cell_that_is_not_in_the_file_is_empty_and_keeps_its_name(results_file):
    cell = Results.read(results_file(seeds=(0,))).cell("prune-0123456789abcdef")
    assert cell == Cell("prune-0123456789abcdef")
    assert cell.kind == "prune"


def test_tasks_follow_the_study_then_the_alphabet(results_file):
    results = Results.read(results_file(tasks=("zeta", "alpha"), seeds=(0,), analyses=False))
    assert results.tasks == ["zeta", "alpha"]
    assert set(results.only("alpha").rows["task"]) == {"alpha"}
    assert len(results.only("nowhere").rows) == 0


def test_a_task_without_any_result_is_still_a_task(tmp_path):
    study = json.dumps({"tasks": ["all-cells-failed"]})
    assert Results.read(write_minimal(tmp_path / "results.h5", study=study)).tasks == ["all-cells-failed"]


@pytest.mark.parametrize(
    ("listed", "names"),
    [(["a", "b"], ["a", "b"]), ([{"name": "a"}], ["a"]), ({"a": {}, "b": {}}, ["a", "b"]), (None, []), (3, [])],
)
def test_names_are_found_in_lists_objects_and_mappings(listed, names):
    assert names_in(listed) == names


def test_another_schema_is_refused_with_both_names(tmp_path):
    path = write_minimal(tmp_path / "results.h5", schema="espalier-results/9")
    with pytest.raises(UnreadableResults, match=r"espalier-results/9.*espalier-results/1.*espalier collect"):
        Results.read(path)


def test_a_missing_column_is_named(tmp_path):
    rows = one_row()
    del rows["num_kept"]
    with pytest.raises(UnreadableResults, match="no column num_kept"):
        Results.read(write_minimal(tmp_path / "results.h5", rows=rows))


def test_columns_of_different_length_are_refused(tmp_path):
    rows = one_row() | {"sparsity": [0.1, 0.2]}
    with pytest.raises(UnreadableResults, match="differ in length"):
        Results.read(write_minimal(tmp_path / "results.h5", rows=rows))


def test_a_column_of_another_type_is_refused(tmp_path):
    rows = one_row() | {"sparsity": ["ninety"]}
    with pytest.raises(UnreadableResults, match="another type"):
        Results.read(write_minimal(tmp_path / "results.h5", rows=rows))


def test_a_column_that_is_not_known_is_kept(tmp_path):
    results = Results.read(write_minimal(tmp_path / "results.h5", rows=one_row() | {"energy_joules": [3.5]}))
    assert results.rows["energy_joules"].tolist() == [3.5]


@pytest.mark.parametrize(("study", "problem"), [("{not json", "not JSON"), ("[1]", "JSON list, not an object")])
def test_a_study_that_is_no_json_object_is_refused(tmp_path, study, problem):
    with pytest.raises(UnreadableResults, match=problem):
        Results.read(write_minimal(tmp_path / "results.h5", study=study))


def test_a_damaged_file_is_refused(results_file):
    path = results_file(seeds=(0,), analyses=False)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(FileRefused):
        Results.read(path)


def test_records_keep_the_types_of_their_columns(results_file):
    row = records(Results.read(results_file(seeds=(7,))).rows)[0]
    assert isinstance(row["seed"], int)
    assert row["seed"] == 7
    assert isinstance(row["sparsity"], float)
