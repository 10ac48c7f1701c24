import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest

from data.hdf5 import FileRefused, open_sealed, read_text
from suite.errors import UserError
from suite.record import Metric, Record
from suite.store import CellId, Store

CELL = CellId("dense", "0123456789abcdef" * 4)
OTHER = CellId("dense", "0123456789abcdef" + "f" * 48)  # the same name in files, another cell
RECORD = Record(metrics={"loss": Metric(0.5, "nats", "lower")}, arrays={"weights/a": np.arange(3.0)})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "runs" / "study")
    made.prepare()
    return made


def put_checkpoint(store: Store, cell: CellId) -> Path:
    """One file of a run, as saved_runs writes them."""
    path = store.checkpoint_path(cell) / "source" / "rows-0-4.bin"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"rows")
    return path


def full_disk(*args: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_cell_lies_under_its_kind_and_the_head_of_its_key(store: Store) -> None:
    assert CELL.name == "dense-0123456789abcdef"
    assert store.path(CELL) == store.folder / "cells" / "dense-0123456789abcdef.h5"
    assert store.log_path(CELL) == store.folder / "logs" / "dense-0123456789abcdef.log"


def test_what_is_committed_is_there(store: Store) -> None:
    assert not store.is_committed(CELL)
    assert store.commit(CELL, RECORD, {"seed": 3}) == store.path(CELL)
    assert store.is_committed(CELL)
    assert store.load(CELL).metrics == RECORD.metrics
    with open_sealed(store.path(CELL)) as file:
        assert json.loads(read_text(file, "config")) == {"seed": 3}


def test_equal_records_make_equal_files(store: Store) -> None:
    first = store.commit(CELL, RECORD, {"b": 1, "a": 2}).read_bytes()
    assert store.commit(CELL, RECORD, {"a": 2, "b": 1}).read_bytes() == first


def test_a_cell_that_was_never_committed(store: Store) -> None:
    with pytest.raises(FileRefused, match="does not exist"):
        store.load(CELL)


def test_another_cell_under_the_same_name_is_refused(store: Store) -> None:
    store.commit(CELL, RECORD, {})
    for look in (store.is_committed, store.load):
        with pytest.raises(FileRefused, match=rf"holds the cell {CELL.key}, expected {OTHER.key}\. Delete it"):
            look(OTHER)


def test_another_schema_is_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("suite.record.SCHEMA", "espalier-cell/0")
        store.commit(CELL, RECORD, {})
    with pytest.raises(FileRefused, match=r"has schema 'espalier-cell/0', this code reads 'espalier-cell/1'\."):
        store.is_committed(CELL)


@pytest.mark.parametrize("position", [0, 100, 600, -1])
def test_one_damaged_byte_is_told(store: Store, position: int) -> None:
    path = store.commit(CELL, RECORD, {})
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    with pytest.raises(FileRefused, match=CELL.name):
        store.is_committed(CELL)


def test_prepare_removes_what_killed_processes_left(store: Store) -> None:
    committed = store.commit(CELL, RECORD, {})
    left = committed.with_name(".tmp-elsewhere-1-00000000-x.h5")
    left.write_bytes(b"half")
    os.utime(left, (0, 0))  # older than any process of another machine may be
    store.prepare()
    assert not left.exists()
    assert store.is_committed(CELL)


def test_a_commit_removes_the_checkpoint_of_its_cell_and_no_other(store: Store) -> None:
    own, other = put_checkpoint(store, CELL), put_checkpoint(store, CellId("dense", "f" * 64))
    store.commit(CELL, RECORD, {})
    assert not own.parent.parent.exists()
    assert other.read_bytes() == b"rows"


def test_prepare_removes_checkpoints_of_committed_cells_alone(store: Store) -> None:
    store.commit(CELL, RECORD, {})
    left = put_checkpoint(store, CELL)  # as after a kill between the commit and the removal
    needed = put_checkpoint(store, CellId("limit", CELL.key))
    store.prepare()
    assert not left.parent.parent.exists()
    assert needed.read_bytes() == b"rows"
    assert store.is_committed(CELL)


def test_a_commit_that_fails_leaves_the_checkpoint(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = put_checkpoint(store, CELL)
    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError, match="No space left"):
        store.commit(CELL, RECORD, {})
    store.prepare()
    assert kept.read_bytes() == b"rows"


def test_a_commit_that_fails_leaves_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError, match="No space left"):
        store.commit(CELL, RECORD, {})
    assert list(store.path(CELL).parent.iterdir()) == []


def test_a_file_in_the_way_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(UserError, match=r"runs/study cannot be written: .*\. Give a folder of your own with --out"):
        Store(tmp_path / "runs" / "study").prepare()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(store: Store) -> None:
    cells = store.folder / "cells"
    cells.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(UserError, match=r"cells cannot be written: no write permission\."):
        store.prepare()
