import dataclasses

import pytest

from launchers._retry import plan_again
from suite.errors import UserError
from suite.plan import Cell, Plan
from suite.progress import Standing


def standing(cell: Cell, state: str) -> Standing:
    return Standing(cell.id.name, cell.id.kind, cell.title, state)


def with_states(plan: Plan, **states: str) -> list[Standing]:
    """All cells missing, but those of some kinds, or of some numbers in the plan ("c2")."""
    return [
        standing(cell, states.get(f"c{number}", states.get(cell.id.kind, "missing")))
        for number, cell in enumerate(plan.cells)
    ]


def keys(plan: Plan) -> list[str]:
    return [cell.id.key for cell in plan.cells]


def dependants(plan: Plan, cell: Cell) -> list[str]:
    return [each.id.key for each in plan.cells if cell.id in each.inputs.values()]


def test_what_failed_is_chosen_with_what_waits_for_it_and_its_committed_inputs(small_plan: Plan) -> None:
    prune = next(number for number, cell in enumerate(small_plan.cells) if cell.id.kind == "prune")
    found = with_states(
        small_plan, dense="done", prune="done", spectrum="done", limit="missing", **{f"c{prune}": "lost"}
    )
    again = plan_again(small_plan, found, [])
    cell = small_plan.cells[prune]
    inputs = [up.key for up in cell.inputs.values()]
    assert set(keys(again)) >= {cell.id.key, *inputs, *dependants(small_plan, cell)} - {
        key for key, each in zip(keys(small_plan), found, strict=True) if each.state == "done" and key not in inputs
    }
    only = plan_again(small_plan, found, [], only=True)
    assert set(keys(only)) == {cell.id.key, *inputs}


def test_nothing_failed_means_no_cells(small_plan: Plan) -> None:
    assert plan_again(small_plan, with_states(small_plan, dense="done"), []).cells == ()


def lacking(plan: Plan, dense: str, *names: str) -> list[Standing]:
    """Dense cells stand like this, those that need them were told so, or that they were cancelled."""
    needing = {cell.id.name for cell in plan.cells if cell.inputs}
    words = {name: "cancelled" if name in names else "needs dense-00" for name in needing}
    return [dataclasses.replace(each, message=words.get(each.name, "")) for each in with_states(plan, dense=dense)]


@pytest.mark.parametrize("dense", ["done", "queued", "running"])
@pytest.mark.parametrize("only", [False, True])
def test_what_found_an_input_missing_is_chosen_when_it_comes(dense: str, only: bool, tiny_plan: Plan) -> None:
    later = [cell for cell in tiny_plan.cells if cell.inputs]
    assert later
    found = lacking(tiny_plan, dense, later[0].id.name)
    again = keys(plan_again(tiny_plan, found, [], only=only))
    assert [cell.id.key in again for cell in later] == [False] + [True] * (len(later) - 1)


@pytest.mark.parametrize("dense", ["missing", "unknown"])
def test_what_found_an_input_missing_that_stays_away_is_not_chosen(dense: str, tiny_plan: Plan) -> None:
    assert plan_again(tiny_plan, lacking(tiny_plan, dense), []).cells == ()


def test_a_chain_that_found_its_beginning_missing_is_chosen_whole(small_plan: Plan) -> None:
    found = lacking(small_plan, "done")
    assert any(not up.name.startswith("dense") for cell in small_plan.cells for up in cell.inputs.values())
    assert set(keys(plan_again(small_plan, found, []))) == set(keys(small_plan))


def test_a_cell_that_needs_another_failure_is_left_alone(tiny_plan: Plan) -> None:
    last = tiny_plan.cells[-1]
    other = next(cell for cell in tiny_plan.cells if cell.id.kind == "dense" and cell.id not in last.inputs.values())
    found = with_states(tiny_plan, dense="failed")
    again = plan_again(tiny_plan, found, [other])
    assert other.id.key in keys(again)
    assert last.id.key not in keys(again)


def test_missing_inputs_of_a_named_cell_come_along(tiny_plan: Plan) -> None:
    last = tiny_plan.cells[-1]
    again = plan_again(tiny_plan, with_states(tiny_plan), [last], only=True)
    assert set(keys(again)) == {last.id.key, *(up.key for up in last.inputs.values())}


@pytest.mark.parametrize(("state", "words"), [("done", "is done"), ("running", "is running"), ("queued", "is queued")])
def test_what_is_done_or_queued_is_not_tried_again(state: str, words: str, tiny_plan: Plan) -> None:
    with pytest.raises(UserError, match=words):
        plan_again(tiny_plan, with_states(tiny_plan, c0=state), [tiny_plan.cells[0]])


def test_without_a_queue_what_is_queued_may_be_run_here(tiny_plan: Plan) -> None:
    found = with_states(tiny_plan, c0="queued")
    again = plan_again(tiny_plan, found, [tiny_plan.cells[0]], only=True, queue=False)
    assert again == dataclasses.replace(tiny_plan, cells=tiny_plan.cells[:1])
