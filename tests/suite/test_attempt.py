"""One try at one cell. The cells of a tiny study are real; what goes wrong is put into the module of their kind."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from data.hdf5 import open_sealed, read_text
from suite.attempt import attempt
from suite.errors import UserError
from suite.plan import Cell, Plan
from suite.planner import make_plan
from suite.record import Record
from suite.store import Store
from suite.study import read_study

Run = Callable[..., Record]


@pytest.fixture
def plan(tiny_study: Path) -> Plan:
    return make_plan(*read_study(str(tiny_study), ["methods=['random']", "options={}", "analyses=[]"]))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "out")
    made.prepare()
    return made


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception], None]:
    """Return a function that makes every dense cell raise an error."""

    def install(error: Exception) -> None:
        def run(*args: object) -> Record:
            raise error

        monkeypatch.setattr("suite.cells.dense.run", run)

    return install


def dense(plan: Plan) -> Cell:
    return plan.cells[0]


def science(record: Record) -> dict[str, Any]:
    """Everything that is a function of the key alone, comparable bit by bit."""
    values: dict[str, Any] = {name: repr(metric) for name, metric in record.metrics.items()}
    values |= {f"cost/{name}": value for name, value in record.cost.items()} | {"status": record.status}
    for name, array in (record.arrays | record.curves).items():
        values[f"array/{name}"] = (str(array.dtype), array.shape, array.tobytes())
    return values


def test_a_cell_is_done_once_and_then_cached(plan: Plan, store: Store) -> None:
    first = attempt(dense(plan), store.folder)
    assert (first.status, first.message, first.cell) == ("done", "", dense(plan).id)
    assert first.wall_s > 0
    content = store.path(dense(plan).id).read_bytes()
    assert attempt(dense(plan), store.folder).status == "cached"
    assert store.path(dense(plan).id).read_bytes() == content


def test_the_record_says_where_and_how_long(plan: Plan, store: Store) -> None:
    attempt(dense(plan), store.folder)
    record = store.load(dense(plan).id)
    assert record.timings["wall_s"] > 0
    assert record.environment["threads"] == 1
    with open_sealed(store.path(dense(plan).id)) as file:
        assert json.loads(read_text(file, "config")) == dense(plan).config


def test_a_training_that_diverges_fails_its_cell_in_one_line(tiny_study: Path, store: Store) -> None:
    overrides = ["methods=['random']", "options={}", "analyses=[]", "training.learning_rate=1e30", "training.l1=0.0"]
    plan = make_plan(*read_study(str(tiny_study), overrides))
    outcome = attempt(dense(plan), store.folder)
    assert outcome.status == "failed"
    assert re.match(
        r"The loss is (nan|inf) at step \d+ of 15 \(epoch \d\); it was \S+ nats before\. Likely: ", outcome.message
    )
    assert "Lower training.learning_rate (it is 1e+30)" in outcome.message
    assert "\n" not in outcome.message
    assert not store.is_committed(dense(plan).id)
    assert store.log_path(dense(plan).id).read_text().splitlines()[-1].endswith(outcome.message)


def test_the_same_cell_twice_is_the_same_but_for_time_and_place(plan: Plan, tmp_path: Path) -> None:
    found = []
    for turn in range(2):
        store = Store(tmp_path / str(turn))
        store.prepare()
        for cell in plan.cells:
            assert attempt(cell, store.folder).status == "done"
        found.append([science(store.load(cell.id)) for cell in plan.cells])
    assert found[0] == found[1]


@pytest.mark.parametrize("threads", [1, 2])
def test_the_caller_s_threads_neither_matter_nor_change(plan: Plan, store: Store, threads: int, tmp_path: Path) -> None:
    seen: list[int] = []
    torch.set_num_threads(threads)
    try:
        attempt(dense(plan), store.folder, progress=lambda *_: seen.append(torch.get_num_threads()))
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(1)
    assert seen
    assert set(seen) == {1}
    reference = Store(tmp_path / "reference")
    reference.prepare()
    attempt(dense(plan), reference.folder)
    assert science(store.load(dense(plan).id)) == science(reference.load(dense(plan).id))


def test_progress_grows_to_one(plan: Plan, store: Store) -> None:
    seen: list[float] = []
    attempt(dense(plan), store.folder, progress=lambda *event: seen.append(event[0]))
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (UserError("mend it\nsecond line"), "mend it"),
        (OSError(5, "Input/output error"), "[Errno 5] Input/output error"),
        (RuntimeError(), "RuntimeError: "),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
    ],
)
def test_an_error_is_an_outcome_with_a_log(
    plan: Plan, store: Store, broken: Callable[[Exception], None], error: Exception, message: str
) -> None:
    broken(error)
    outcome = attempt(dense(plan), store.folder)
    assert outcome.status == "failed"
    assert outcome.message.startswith(message)
    assert "\n" not in outcome.message
    log = store.log_path(dense(plan).id)
    assert (str(log) in outcome.message) == (not isinstance(error, UserError | OSError))  # bugs point to their trace
    assert log.read_text().startswith(f"{dense(plan).title}\nhost ")
    assert "Traceback" in log.read_text()
    assert not store.is_committed(dense(plan).id)


def test_a_later_success_removes_the_log(plan: Plan, store: Store) -> None:
    store.log_path(dense(plan).id).write_text("an earlier failure")
    assert attempt(dense(plan), store.folder).status == "done"
    assert not store.log_path(dense(plan).id).exists()


def test_a_full_disk_stops_the_run(plan: Plan, store: Store, broken: Callable[[Exception], None]) -> None:
    broken(OSError(28, "No space left on device"))
    with pytest.raises(UserError, match=r"cannot be written: No space left on device\. Free space or give another"):
        attempt(dense(plan), store.folder)


def test_a_missing_input_fails_the_cell(plan: Plan, store: Store) -> None:
    outcome = attempt(plan.cells[-1], store.folder)
    assert outcome.status == "failed"
    assert "does not exist" in outcome.message


def test_data_that_changed_under_way_is_told(plan: Plan, store: Store, tmp_path: Path) -> None:
    cell = Cell(dense(plan).id, dense(plan).config, {}, "title", 1, {"data": str(tmp_path / "gone.h5")})
    outcome = attempt(cell, store.folder)
    assert outcome.status == "failed"
    assert "gone.h5 does not exist" in outcome.message


def test_a_method_that_keeps_another_number_of_weights_is_stopped(
    plan: Plan, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from suite.pruning.methods import random

    honest = random.find_ticket

    def greedy(search: Any, options: Any) -> Any:
        ticket = honest(search, options)
        next(iter(ticket.masks.values())).fill_(True)
        return ticket

    monkeypatch.setattr(random, "find_ticket", greedy)
    attempt(dense(plan), store.folder)
    prune = next(cell for cell in plan.cells if cell.id.kind == "prune")
    outcome = attempt(prune, store.folder)
    assert outcome.status == "failed"
    assert "random kept" in outcome.message
    assert f"Expected: exactly {prune.config['num_keep']}." in outcome.message


def test_inputs_reach_the_cell_by_role(plan: Plan, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def run(config: Any, inputs: Mapping[str, Record], context: Any) -> Record:
        seen.update(config=config, inputs=inputs, paths=context.input_paths, places=context.places)
        return Record()

    attempt(dense(plan), store.folder)
    monkeypatch.setattr("suite.cells.prune.run", run)
    cell = plan.cells[-1]
    assert attempt(cell, store.folder).status == "done"
    assert seen["config"].model_dump(mode="json") == cell.config
    assert list(seen["inputs"]) == ["dense"]
    assert seen["paths"] == {"dense": (dense(plan).id, store.path(dense(plan).id))}
    assert seen["places"] == {"data": Path(cell.places["data"])}
