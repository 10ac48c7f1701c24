from pathlib import Path

import pytest

from suite.errors import UserError
from suite.planner import make_plan
from suite.progress import counts, read_plan, standings
from suite.record import Record
from suite.store import Store
from suite.study import read_study


def test_a_study_s_standing_is_read_from_its_folder(tiny_study: Path, tmp_path: Path) -> None:
    plan = make_plan(*read_study(str(tiny_study), ["methods=['random', 'imp']", "options={imp={rewind_step=0}}"]))
    store = Store(tmp_path / "out")
    store.prepare()
    plan.freeze(store.folder)
    first, second, third = plan.cells[:3]
    store.commit(first.id, Record(), first.config)
    store.log_path(first.id).write_text("an older failure")
    store.log_path(second.id).write_text("title\n\nTraceback\nValueError: no\n\n")
    store.log_path(third.id).write_text("")
    assert read_plan(store.folder) == plan
    found = standings(plan, store)
    assert [(standing.state, standing.message) for standing in found[:4]] == [
        ("done", ""),
        ("failed", "ValueError: no"),
        ("failed", ""),
        ("missing", ""),
    ]
    assert [standing.name for standing in found] == [cell.id.name for cell in plan.cells]
    assert found[0].title == first.title
    assert counts(found)[first.id.kind]["done"] == 1
    assert sum(sum(states.values()) for states in counts(found).values()) == len(plan.cells)


def test_a_folder_without_a_study(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no study \(no plan\.json\)\. Expected: a folder that `espalier run`"):
        read_plan(tmp_path)


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b'{"study": 1, "tasks": {}, "cells": [], "rows": []}'])
def test_a_damaged_plan(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "plan.json").write_bytes(content)
    with pytest.raises(UserError, match=r"plan\.json"):
        read_plan(tmp_path)
