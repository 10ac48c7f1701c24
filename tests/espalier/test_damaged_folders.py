"""Folders that somebody or something damaged: one line that names the file, exit code 2, and nothing overwritten."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest

from data.hdf5 import write_sealed

Refused = Callable[..., str]
Espalier = Callable[..., Any]
Damage = Callable[[Path], None]


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replace_by_text(path: Path) -> None:
    path.write_text("not HDF5")


def replace_by_plain_hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.attrs["schema"] = "espalier-cell/1"


def change_the_schema(path: Path) -> None:
    write_sealed(path, lambda file: file.attrs.update(schema="espalier-cell/99", key="0"))


def link_elsewhere(path: Path) -> None:
    other = path.with_suffix(".moved")
    path.rename(other)
    with h5py.File(path, "w") as file:
        file["cells"] = h5py.ExternalLink(str(other), "/")


DAMAGES = [
    flip_a_bit,
    cut,
    empty,
    make_folder,
    replace_by_text,
    replace_by_plain_hdf5,
    change_the_schema,
    link_elsewhere,
]


def a_cell(study: Path) -> Path:
    return min((study / "cells").glob("prune-*.h5"))


def by_name(damage: Damage) -> str:
    return damage.__name__


@pytest.mark.parametrize("damage", DAMAGES, ids=by_name)
@pytest.mark.parametrize("command", ["status", "collect"])
def test_a_damaged_cell_is_named_and_left_alone(command: str, damage: Damage, study: Path, refused: Refused) -> None:
    damage(a_cell(study))
    assert str(a_cell(study)) in refused(command, study)


def test_a_run_stops_at_a_damaged_cell_and_goes_on_once_it_is_deleted(
    study: Path, small_study: Path, settings: list[str], espalier: Espalier
) -> None:
    command = ("run", small_study, "--out", study, *settings)
    good = a_cell(study).read_bytes()
    flip_a_bit(a_cell(study))
    bad = a_cell(study).read_bytes()
    answer = espalier(*command)
    (line,) = answer.err.splitlines()
    assert answer.code == 2
    assert line == (
        f"espalier: {a_cell(study)} is damaged: its content does not match its seal. Expected: the bytes that were "
        "sealed. Delete it and let it be written again."
    )
    assert a_cell(study).read_bytes() == bad
    damaged = a_cell(study)
    damaged.unlink()
    answer = espalier(*command)
    assert answer.code == 0, answer.err
    assert "1 done" in answer.out
    assert damaged.stat().st_size == pytest.approx(len(good), rel=0.2)


def test_a_cell_under_another_name_is_refused(study: Path, refused: Refused) -> None:
    first, second, *_ = sorted((study / "cells").glob("prune-*.h5"))
    second.write_bytes(first.read_bytes())
    line = refused("status", study)
    assert f"{second} holds the cell {first.stem.removeprefix('prune-')}" in line


@pytest.mark.parametrize("damage", DAMAGES, ids=by_name)
def test_damaged_results_are_not_reported(damage: Damage, study: Path, refused: Refused) -> None:
    damage(study / "results.h5")
    assert "results.h5" in refused("report", study)


def test_damaged_results_are_collected_anew(study: Path, espalier: Espalier) -> None:
    good = (study / "results.h5").read_bytes()
    for damage in (flip_a_bit, cut, empty):
        damage(study / "results.h5")
        assert espalier("collect", study).code == 0
        assert len((study / "results.h5").read_bytes()) == pytest.approx(len(good), rel=0.05)


def test_without_results_the_next_step_is_named(study: Path, refused: Refused) -> None:
    (study / "results.h5").unlink()
    assert f"{study} holds no results.h5. Run first: espalier collect {study}" in refused("report", study)


@pytest.mark.parametrize("command", ["status", "cancel", "collect", "report"])
@pytest.mark.parametrize("name", ["nowhere", "file"])
def test_a_folder_that_holds_no_study(command: str, name: str, working_folder: Path, refused: Refused) -> None:
    (working_folder / "file").write_text("")
    assert f"espalier: {name} holds no " in refused(command, name)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"null", b"3", b'"x"', b"\xff\x00", b'{"study": 3}'])
@pytest.mark.parametrize("command", ["status", "collect"])
def test_a_plan_that_is_none(command: str, content: bytes, study: Path, refused: Refused) -> None:
    (study / "plan.json").write_bytes(content)
    assert str(study / "plan.json") in refused(command, study)


def test_a_plan_that_is_a_folder(study: Path, refused: Refused) -> None:
    make_folder(study / "plan.json")
    assert "holds no study (no plan.json)" in refused("status", study)


@pytest.mark.parametrize("seed", range(30))
def test_no_flipped_bit_in_a_plan_ends_in_a_traceback(seed: int, study: Path, espalier: Espalier) -> None:
    content = bytearray((study / "plan.json").read_bytes())
    draw = random.Random(seed)
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    (study / "plan.json").write_bytes(content)
    answer = espalier("status", study)
    assert (answer.code, len(answer.err.splitlines())) in ((0, 0), (2, 1))
