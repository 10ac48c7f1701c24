"""The contract of all kinds of cell: a new file in suite/cells is tested here the day a study has it."""

import inspect
from typing import Any

import pytest

from suite.attempt import attempt
from suite.catalogue import analyses
from suite.datasets import locate
from suite.estimate.rates import Subject
from suite.extensions import available, load
from suite.record import Record
from suite.store import Store
from suite.strict import Settings

KINDS = available("suite.cells")
MEASURED = {"environment", "timings"}  # what may differ between two runs of one cell


def science(record: Record) -> dict[str, Any]:
    values: dict[str, Any] = {"status": record.status, "cost": record.cost, "metrics": repr(record.metrics)}
    arrays = record.arrays | {f"curve {name}": curve for name, curve in record.curves.items()}
    return values | {name: (str(array.dtype), array.shape, array.tobytes()) for name, array in arrays.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_says_what_it_is(kind: str) -> None:
    module = load("suite.cells", kind, "kind of cell")
    assert module.__doc__
    assert isinstance(module.VERSION, int)
    assert isinstance(module.SHARDED, bool)
    assert isinstance(getattr(module, "PRIORITY", 0), int)
    assert issubclass(module.Config, Settings)
    assert {"model", "data", "threads"} <= set(module.Config.model_fields)
    assert list(inspect.signature(module.run).parameters) == ["config", "inputs", "context"]
    assert list(inspect.signature(module.tables).parameters) == ["config", "record"]
    assert list(inspect.signature(module.work).parameters) == ["config", "sizes"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_analysis_has_options_with_defaults_and_a_plan(kind: str) -> None:
    module = load("suite.cells", kind, "kind of cell")
    assert hasattr(module, "plan") == hasattr(module, "Options") == (kind in analyses())
    if kind in analyses():
        assert module.Options() == module.Options.model_validate_json("{}")
        assert list(inspect.signature(module.plan).parameters) == ["planner", "task", "seed", "options"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_tiny_study_has_it(committed: Any, kind: str) -> None:
    assert committed.cells(kind), f"add {kind} to the study of tests/conftest.py"


@pytest.mark.parametrize("kind", KINDS)
def test_the_configuration_survives_json(committed: Any, kind: str) -> None:
    module = load("suite.cells", kind, "kind of cell")
    for cell in committed.cells(kind):
        assert module.Config.model_validate(cell.config, strict=False).model_dump(mode="json") == cell.config


@pytest.mark.parametrize("kind", KINDS)
def test_no_path_is_in_the_configuration(committed: Any, kind: str) -> None:
    def texts(value: Any) -> list[str]:
        if isinstance(value, dict):
            return [text for key, each in value.items() for text in [*texts(key), *texts(each)]]
        return [value] if isinstance(value, str) else []

    assert not [text for cell in committed.cells(kind) for text in texts(cell.config) if "/" in text]


@pytest.mark.parametrize("kind", KINDS)
def test_running_it_again_gives_the_same_record(committed: Any, kind: str, tmp_path: Any) -> None:
    cell = committed.cells(kind)[-1]
    again = Store(tmp_path)
    again.prepare()
    for cell_id in cell.inputs.values():
        again.path(cell_id).write_bytes(committed.store.path(cell_id).read_bytes())
    assert attempt(cell, tmp_path).status == "done"
    assert science(again.load(cell.id)) == science(committed.record(cell))
    assert set(vars(Record())) - MEASURED == {"status", "metrics", "curves", "arrays", "cost"}


@pytest.mark.parametrize("kind", KINDS)
def test_the_record_says_what_it_cost_and_where_it_was_made(committed: Any, kind: str) -> None:
    for cell in committed.cells(kind):
        record = committed.record(cell)
        assert record.status == "ok"
        assert record.cost
        assert all(value >= 0 for value in record.cost.values())
        assert record.timings["wall_s"] > 0
        assert record.environment["packages"]["torch"]


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_one_table_have_the_same_columns_of_plain_values(committed: Any, kind: str) -> None:
    module = load("suite.cells", kind, "kind of cell")
    for cell in committed.cells(kind):
        config = module.Config.model_validate(cell.config, strict=False)
        for rows in module.tables(config, committed.record(cell)).values():
            assert rows
            assert {tuple(row) for row in rows} == {tuple(rows[0])}
            assert all(isinstance(value, str | int | float) for row in rows for value in row.values())


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_counted_beforehand_is_what_was_paid(committed: Any, kind: str) -> None:
    module = load("suite.cells", kind, "kind of cell")
    for cell in committed.cells(kind):
        config = module.Config.model_validate(cell.config, strict=False)
        work = module.work(config, Subject(config.model, locate(cell.places["data"]), 1).sizes())
        record = committed.record(cell)
        for name, guess in {"gradient_steps": work.gradient_steps, "matvecs": work.products}.items():
            # runs on 72 weights end where the space is exhausted, so products may be fewer than were asked for
            least = guess.low if name == "gradient_steps" else 0
            assert least <= record.cost.get(name, 0.0) <= guess.high, f"{cell.title}: {name}"
        assert record.cost.get("num_trainings", work.num_trainings.low) == work.num_trainings.low
        size = committed.store.path(cell.id).stat().st_size
        assert size / 2 < work.disk_bytes < 2 * size, cell.title
