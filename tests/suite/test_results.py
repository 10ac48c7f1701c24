import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from data.hdf5 import FileRefused, read_texts
from suite.plan import Plan
from suite.results import collect
from suite.store import Store


@pytest.fixture
def copied(committed: Any, tmp_path: Path) -> Store:
    """The cells of the tiny study in a folder that a test may write to."""
    store = Store(tmp_path / "copy")
    store.prepare()
    for cell in committed.plan.cells:
        store.path(cell.id).write_bytes(committed.store.path(cell.id).read_bytes())
    return store


def column(path: Path, table: str, name: str) -> Any:
    with h5py.File(path) as file:
        values = file[f"table/{table}/{name}"]
        return read_texts(file, f"table/{table}/{name}") if values.dtype.kind == "S" else values[()]


def test_every_cell_is_copied_whole(committed: Any, copied: Store) -> None:
    found = collect(committed.plan, copied, "espalier collect here")
    assert (found.num_planned, found.num_committed) == (len(committed.plan.cells), len(committed.plan.cells))
    with h5py.File(found.path) as file:
        assert set(file["cells"]) == {cell.id.name for cell in committed.plan.cells}
        assert file.attrs["command"] == "espalier collect here"
        assert file.attrs["schema"] == "espalier-results/1"
        assert json.loads(file["study"].asstr()[()])["name"] == "tiny-study"
        for cell in committed.plan.cells:
            with h5py.File(copied.path(cell.id)) as source:
                assert file[f"cells/{cell.id.name}"].attrs["key"] == source.attrs["key"]
                source.visititems(lambda name, item, cell=cell: assert_same(file[f"cells/{cell.id.name}/{name}"], item))


def assert_same(copy: Any, original: Any) -> None:
    if isinstance(original, h5py.Dataset):
        assert copy.dtype == original.dtype
        assert np.array(copy).tobytes() == np.array(original).tobytes() or original.dtype.kind == "O"
    assert dict(copy.attrs) == dict(original.attrs)


def test_the_rows_stand_in_the_plan_s_order(committed: Any, copied: Store) -> None:
    path = collect(committed.plan, copied, "").path
    rows = [row for row in committed.plan.rows if row.cell.kind == "prune"]
    assert list(column(path, "rows", "method")) == [row.fields["method"] for row in rows]
    assert list(column(path, "rows", "cell")) == [row.cell.name for row in rows]
    assert column(path, "rows", "sparsity").tolist() == [row.fields["sparsity"] for row in rows]
    accuracy = [copied.load(row.cell).metrics["test_accuracy"].value for row in rows]
    assert column(path, "rows", "test_accuracy").tolist() == accuracy


def test_each_table_has_columns_of_one_length(committed: Any, copied: Store) -> None:
    path = collect(committed.plan, copied, "").path
    with h5py.File(path) as file:
        lengths = {name: {len(values) for values in table.values()} for name, table in file["table"].items()}
    # limits: 2 predicted limits at 3 tolerances and 4 measured ones by SLQ, 3 at 3 from the dense Hessian,
    # 1 at 3 with the published numerics, and 1 at 3 by conjugate gradients.
    num_rows = sum(row.cell.kind == "prune" for row in committed.plan.rows)
    assert lengths == {
        "rows": {num_rows},
        "spectra": {2},
        "limits": {6 + 4 + 9 + 3 + 3},
        "row_norms": {1},
        "sweeps": {1},
    }


def test_collecting_twice_gives_the_same_bytes(committed: Any, copied: Store) -> None:
    first = collect(committed.plan, copied, "again").path.read_bytes()
    assert collect(committed.plan, copied, "again").path.read_bytes() == first


def test_missing_cells_are_counted_and_not_invented(committed: Any, copied: Store) -> None:
    gone = next(cell for cell in committed.plan.cells if cell.config.get("method") == "random")
    copied.path(gone.id).unlink()
    found = collect(committed.plan, copied, "")
    assert (found.num_planned, found.num_committed) == (len(committed.plan.cells), len(committed.plan.cells) - 1)
    rows = column(found.path, "rows", "cell")
    assert gone.id.name not in rows
    assert len(rows) == sum(row.cell.kind == "prune" for row in committed.plan.rows) - 1


def test_nothing_committed_is_a_file_without_tables(committed: Any, tmp_path: Path) -> None:
    store = Store(tmp_path / "empty")
    store.prepare()
    found = collect(committed.plan, store, "")
    assert found.num_committed == 0
    with h5py.File(found.path) as file:
        assert "table" not in file


def test_a_damaged_cell_stops_the_collection(committed: Any, copied: Store) -> None:
    path = copied.path(committed.plan.cells[0].id)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(FileRefused, match=path.stem):
        collect(committed.plan, copied, "")
    assert not (copied.folder / "results.h5").exists()


def test_a_smaller_plan_over_the_same_cells_collects_only_its_own(committed: Any, copied: Store) -> None:
    plan: Plan = committed.plan
    few = Plan(plan.study, plan.tasks, plan.cells[:1], ())
    assert collect(few, copied, "").num_planned == 1
    with h5py.File(copied.folder / "results.h5") as file:
        assert list(file["cells"]) == [plan.cells[0].id.name]
