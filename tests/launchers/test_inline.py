import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launchers import inline
from launchers._events import Advanced, Event, Finished, Started
from suite.attempt import Outcome
from suite.errors import UserError
from suite.plan import Cell, Plan
from suite.store import CellId, Store

Stamps = Callable[[Path], dict[str, tuple[int, int]]]


def with_data_at(plan: Plan, place: str, kind: str = "") -> Plan:
    """The same plan, and the same keys, but the cells of one kind look for their data elsewhere."""
    moved = tuple(
        dataclasses.replace(cell, places={"data": place}) if cell.id.kind.startswith(kind) else cell
        for cell in plan.cells
    )
    return dataclasses.replace(plan, cells=moved)


def about(events: list[Event], key: str) -> list[type]:
    """The kinds of events about one cell, each once, in their order."""
    mine = [
        type(event)
        for event in events
        if (event.outcome.cell if isinstance(event, Finished) else event.cell.id).key == key
    ]
    return list(dict.fromkeys(mine))


def test_every_cell_is_done_and_committed(small_plan: Plan, inline_run: Any) -> None:
    assert [outcome.cell for outcome in inline_run.outcomes] == [cell.id for cell in small_plan.cells]
    assert {outcome.status for outcome in inline_run.outcomes} == {"done"}
    assert all(Store(inline_run.folder).is_committed(cell.id) for cell in small_plan.cells)
    assert sorted(path.stem for path in (inline_run.folder / "cells").iterdir()) == sorted(
        cell.id.name for cell in small_plan.cells
    )


def test_each_cell_starts_advances_and_ends_in_that_order(small_plan: Plan, inline_run: Any) -> None:
    orders = {cell.id.key: about(inline_run.events, cell.id.key) for cell in small_plan.cells}
    assert all(order in ([Started, Advanced, Finished], [Started, Finished]) for order in orders.values())
    assert any(Advanced in order for order in orders.values())
    fractions = [event.fraction for event in inline_run.events if isinstance(event, Advanced)]
    assert all(0 <= fraction <= 1 for fraction in fractions)


def test_no_cell_starts_before_its_inputs_ended(small_plan: Plan, inline_run: Any) -> None:
    ended: set[str] = set()
    for event in inline_run.events:
        if isinstance(event, Finished):
            ended.add(event.outcome.cell.key)
        elif isinstance(event, Started):
            assert {cell.key for cell in event.cell.inputs.values()} <= ended


def test_a_second_run_does_nothing(
    tiny_plan: Plan, run_with: Callable[..., Any], stamps: Stamps, tmp_path: Path
) -> None:
    run_with(inline, tiny_plan, tmp_path)
    before = stamps(tmp_path)
    again = run_with(inline, tiny_plan, tmp_path)
    assert {outcome.status for outcome in again.outcomes} == {"cached"}
    assert not any(isinstance(event, Started) for event in again.events)
    assert len(before) == len(tiny_plan.cells)
    assert stamps(tmp_path) == before


def test_what_is_missing_alone_is_made_again_to_the_same_numbers(
    small_plan: Plan,
    inline_run: Any,
    run_with: Callable[..., Any],
    stamps: Stamps,
    science: Callable[[Path], dict[str, Any]],
    tmp_path: Path,
) -> None:
    shutil.copytree(inline_run.folder, tmp_path, dirs_exist_ok=True)
    lost = {cell.id for cell in small_plan.cells if cell.id.kind in ("dense", "limit")}
    for cell in lost:
        Store(tmp_path).path(cell).unlink()
    before = stamps(tmp_path)
    again = run_with(inline, small_plan, tmp_path)
    assert {outcome.cell for outcome in again.outcomes if outcome.status == "done"} == lost
    after = stamps(tmp_path)
    assert {name: after[name] for name in before} == before
    assert science(tmp_path) == science(inline_run.folder)


def test_a_failure_costs_what_needs_it_and_nothing_else(
    small_plan: Plan, run_with: Callable[..., Any], tmp_path: Path
) -> None:
    rewind = next(cell for cell in small_plan.cells if cell.config.get("stop_step"))
    broken = tuple(
        dataclasses.replace(cell, places={"data": "/nowhere/x.h5"}) if cell is rewind else cell
        for cell in small_plan.cells
    )
    run = run_with(inline, dataclasses.replace(small_plan, cells=broken), tmp_path)
    status = {outcome.cell.key: outcome for outcome in run.outcomes}
    imp = {cell.id.key for cell in small_plan.cells if cell.config.get("method") == "imp"}
    assert imp
    assert {key for key in status if status[key].status == "upstream_failed"} == imp
    assert {key for key in status if status[key].status == "failed"} == {rewind.id.key}
    assert {status[key].message for key in imp} == {f"needs {rewind.id.name}"}
    assert "/nowhere/x.h5" in status[rewind.id.key].message
    assert [path.stem for path in (tmp_path / "logs").iterdir()] == [rewind.id.name]
    again = run_with(inline, small_plan, tmp_path)
    assert {outcome.cell.key for outcome in again.outcomes if outcome.status == "done"} == {*imp, rewind.id.key}
    assert not list((tmp_path / "logs").iterdir())


def test_a_crash_inside_a_cell_names_its_log(tiny_plan: Plan, run_with: Callable[..., Any], tmp_path: Path) -> None:
    dense = tiny_plan.cells[0]
    config = dense.config | {"recipe": dense.config["recipe"] | {"momentum": "much"}}
    plan = dataclasses.replace(tiny_plan, cells=(dataclasses.replace(dense, config=config), *tiny_plan.cells[1:]))
    outcome = run_with(inline, plan, tmp_path).outcomes[0]
    log = Store(tmp_path).log_path(dense.id)
    assert outcome.status == "failed"
    assert "\n" not in outcome.message
    assert outcome.message.endswith(f"(see {log})")
    assert log.read_text().startswith(dense.title)
    assert "Traceback" in log.read_text()


def test_a_cell_that_takes_the_gpu_from_the_process_stops_the_run(
    tiny_plan: Plan, run_with: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[CellId] = []

    def failing(cell: Cell, *more: Any, **options: Any) -> Outcome:
        tried.append(cell.id)
        return Outcome(cell.id, "failed", "CUDA error: device-side assert triggered")

    others = [cell for cell in tiny_plan.cells if not cell.inputs]
    plan = dataclasses.replace(tiny_plan, cells=(*others, dataclasses.replace(others[0], id=CellId("dense", "0" * 64))))
    monkeypatch.setattr(inline, "attempt", failing)
    monkeypatch.setattr(inline, "gpu_is_lost", lambda: True)
    message = r"has failed \(CUDA error: device-side assert triggered\), and every later cell of this process would: "
    with pytest.raises(UserError, match=f"{message}.* --launcher ray, which has a process for each cell"):
        run_with(inline, plan, tmp_path)
    assert len(tried) == 1
    assert len(plan.cells) > 1


def test_a_folder_that_takes_no_files_stops_the_run(
    tiny_plan: Plan, run_with: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Store, "commit", full)
    with pytest.raises(UserError, match=r"No space left on device.*run the same command again"):
        run_with(inline, tiny_plan, tmp_path)
    assert not list((tmp_path / "cells").iterdir())
