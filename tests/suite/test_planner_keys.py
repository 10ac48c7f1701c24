"""A key that moves makes every stored result unfindable, so it moves exactly when the science does."""

import json
from pathlib import Path

import pytest
import torch

from suite.plan import Plan
from suite.planner import make_plan
from suite.study import read_study


def planned(study: Path | str, *overrides: str) -> Plan:
    return make_plan(*read_study(str(study), overrides))


GOLDEN = {
    "dense": "b96de511ebb8970e",
    "dense cell": "ea53e6ae2e30583a",
    "dense_hessian": "497d41004b3f9af0",
    "imp": "f10dd53044eb7802",
    "limit": "9892860f2d0aec9c",
    "lomp": "9e308b2f01f2ceb3",
    "lomp_fine_tuned": "f9e6a34db513da74",
    "masked_limit": "47f99c4f3b76f407",
    "random": "8c5e847ffe1101ba",
    "rare_gems": "1c36bbd606591e23",
    "row_norms": "c13c7562a5ac0348",
    "smart_ratio": "a730f4ed1a7aedf1",
    "spectrum": "b7cbc5d403c34f87",
}
ACCEPT = """The keys of the built-in study quickstart changed: results stored so far are not found any more.
If the numbers really change, raise VERSION (of the cell, method, model or training loop that changed them), say so in
CHANGELOG.md, and put these keys into tests/suite/test_planner_keys.py:
"""


def quickstart_keys() -> dict[str, str]:
    plan = planned("quickstart", "seeds=[0]", "sparsities=[0.9]")
    cells = {cell.id.key: cell for cell in plan.cells}
    rows = [row for row in plan.rows if row.fields.get("requested", True)]
    keys = {row.fields.get("method", row.cell.kind): row.cell.key for row in rows}
    keys["dense cell"] = cells[keys["random"]].inputs["dense"].key
    return {name: key[:16] for name, key in sorted(keys.items())}


def test_the_keys_of_the_quickstart_are_golden() -> None:
    keys = quickstart_keys()
    assert keys == GOLDEN, ACCEPT + json.dumps(keys, indent=4)


def keys_of(plan: Plan) -> list[str]:
    return [cell.id.key for cell in plan.cells]


def move_header_up(table: str) -> str:
    *keys, header = table.splitlines()
    return "\n".join([header, *keys])


def test_names_titles_and_the_order_of_keys_do_not_move_keys(tiny_study: Path) -> None:
    before = keys_of(planned(tiny_study))
    methods = ["random", "imp", "dense", "lomp", "smart_ratio", "rare_gems"]
    other = planned(tiny_study, "name='other'", "description='words'", f"methods={methods}")
    assert sorted(keys_of(other)) == sorted(before)
    task = tiny_study.parent / "task.toml"
    tables = task.read_text().replace('"tiny"', '"renamed"').replace("\n[", "\n\n\n[").split("\n\n\n")
    head, *others = ["\n".join(reversed(table.splitlines())) for table in tables]
    rewritten = [head, "description = 'moved'", *(move_header_up(table) for table in reversed(others))]
    task.write_text("\n".join(rewritten))
    plan = planned(tiny_study)
    assert list(plan.tasks) == ["renamed"]
    assert keys_of(plan) == before


def test_the_folder_of_the_data_does_not_move_keys_and_its_numbers_do(
    tiny_study: Path, tiny_data: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "elsewhere" / tiny_data.name
    copy.parent.mkdir()
    copy.write_bytes(tiny_data.read_bytes())
    plan = planned(tiny_study, f"data='{copy}'")
    assert keys_of(plan) == keys_of(planned(tiny_study))
    assert {cell.places["data"] for cell in plan.cells} == {str(copy)}
    assert str(tmp_path) not in json.dumps([cell.config for cell in plan.cells])


def test_the_machine_does_not_move_keys(tiny_study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = keys_of(planned(tiny_study))
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    monkeypatch.chdir(tiny_study.parent)
    assert keys_of(planned("./study.toml")) == before


def kinds_moved(before: Plan, after: Plan) -> set[str]:
    """Return which cells, by kind and method, have another key; both plans have the same shape."""
    pairs = zip(before.cells, after.cells, strict=True)
    return {old.config.get("method", old.id.kind) for old, new in pairs if old.id.key != new.id.key}


ALL = {"dense", "lomp", "imp", "rare_gems", "smart_ratio", "random", "spectrum", "limit", "dense_hessian"}


@pytest.mark.parametrize(
    ("override", "moved"),
    [
        ("seeds=[1]", ALL),
        ("training.epochs=4", ALL),
        ("training.momentum=0.5", ALL),
        ("threads=2", ALL),
        ("model_options.hidden=[9]", ALL),
        ("options.rare_gems.score_penalty=0.5", {"rare_gems"}),
        ("options.imp.rewind_step=4", {"dense", "imp"}),  # and the dense cell that stops there
        ("recipes.rare_gems.weight_decay=0.1", {"dense", "rare_gems"}),
        ("recipes.lomp.l1=2e-3", {"dense", "lomp", "spectrum", "limit", "dense_hessian"}),
        ("options.spectrum.num_probes=5", {"spectrum", "limit"}),
        ("options.limit.fine_tune_epochs=2", {"limit"}),
        ("options.limit.curvature='positive'", {"limit", "dense_hessian"}),
    ],
)
def test_the_science_moves_exactly_the_keys_that_rest_on_it(tiny_study: Path, override: str, moved: set[str]) -> None:
    before, after = planned(tiny_study, "sparsities=[0.5]"), planned(tiny_study, "sparsities=[0.5]", override)
    assert kinds_moved(before, after) == moved


def _versions() -> dict[str, tuple[str, set[str]]]:
    return {
        "method": ("suite.pruning.methods.random", {"random"}),
        "model": ("suite.models.mlp", ALL),
        "analysis": ("suite.cells.limit", {"limit"}),
        "dense cell": ("suite.cells.dense", ALL),
    }


@pytest.mark.parametrize("what", _versions())
def test_a_raised_version_moves_keys(tiny_study: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    module, moved = _versions()[what]
    before = planned(tiny_study)
    monkeypatch.setattr(f"{module}.VERSION", 99)
    assert kinds_moved(before, planned(tiny_study)) == moved


def test_what_is_not_said_is_written_out_in_the_configuration(tiny_study: Path) -> None:
    # Else a changed default would pass for the old result.
    prune = next(cell for cell in planned(tiny_study).cells if cell.config.get("method") == "imp")
    assert prune.config["recipe"]["momentum"] == 0.9
    assert prune.config["options"] == {"fraction_per_round": 0.4, "rewind_step": 3}
    assert prune.config["model"]["options"] == {"hidden": [8]}
