import json
from dataclasses import replace
from pathlib import Path

import pytest

from suite.errors import UserError
from suite.plan import Plan, plan_from_json
from suite.planner import make_plan
from suite.study import read_study


def planned(study: Path, *overrides: str) -> Plan:
    return make_plan(*read_study(str(study), overrides))


def test_a_plan_survives_its_frozen_copy(tiny_study: Path, tmp_path: Path) -> None:
    plan = planned(tiny_study)
    folder = tmp_path / "out"
    folder.mkdir()
    plan.freeze(folder)
    assert plan_from_json((folder / "plan.json").read_text(), folder / "plan.json") == plan


def test_a_copy_from_before_cells_named_their_task_is_read(tiny_study: Path) -> None:
    plan = planned(tiny_study)
    assert {cell.task for cell in plan.cells} == {"tiny"}
    values = json.loads(plan.to_json())
    for cell in values["cells"]:
        del cell["task"]
    again = plan_from_json(json.dumps(values), Path("plan.json"))
    assert again.cells == tuple(replace(cell, task="") for cell in plan.cells)


def test_the_frozen_study_is_a_study_that_plans_the_same_cells(tiny_study: Path, tmp_path: Path) -> None:
    plan = planned(tiny_study, "training.epochs=2", "seeds=[5]")
    folder = tmp_path / "out"
    folder.mkdir()
    plan.freeze(folder)
    assert planned(folder / "study.toml").cells == plan.cells


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"study": {}}', "null", '{"study": {"name": "x"}}'])
def test_what_is_no_plan_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"^plan\.json"):
        plan_from_json(text, Path("plan.json"))
