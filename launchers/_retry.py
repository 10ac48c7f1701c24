"""What is tried again: cells that failed or were lost, what they need, and what waits for them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from launchers._arrays import wave_of_each
from launchers._claims import release_claims
from suite.errors import UserError
from suite.plan import Cell, Plan
from suite.progress import Standing
from suite.store import Store

IN_QUEUE = ("running", "queued", "waiting")
_LACKED = "needs "  # how the message of a cell begins whose job found an input of it missing


def plan_again(
    plan: Plan, found: Sequence[Standing], named: Sequence[Cell], *, only: bool = False, queue: bool = True
) -> Plan:
    """Return the part of a plan that a retry runs.

    Args:
        plan: the study's.
        found: how its cells stand, in the plan's order.
        named: cells to try again; none means all that failed or were lost, and those whose jobs found an input missing
            that is there or in the queue by now.
        only: leave out the cells that wait for those.
        queue: whether cells in the queue need not be run for those that wait for them: not where there is none.

    Returns:
        The plan with these cells, inputs of theirs that have no record, and committed inputs; no cell if none failed.
        What was begun comes last among its like: should it take its job down again, it takes no other cell along.

    Raises:
        UserError: a named cell is done, or in the queue.
    """
    states = {cell.id.key: standing for cell, standing in zip(plan.cells, found, strict=True)}
    for cell in named:
        _check_open(cell, states[cell.id.key], queue)
    there = {key for key, each in states.items() if each.state == "done" or (queue and each.state in IN_QUEUE)}
    wanted = named or [cell for cell in plan.cells if states[cell.id.key].state in ("failed", "lost")]
    chosen = with_inputs(plan, {cell.id.key for cell in wanted}, there)
    if not named:
        _add_lacking(plan, states, chosen, there)
    if not only:
        _add_dependants(plan, chosen, there)
    inputs = {up.key for cell in plan.cells if cell.id.key in chosen for up in cell.inputs.values()}
    cells = [cell for cell in plan.cells if cell.id.key in chosen | inputs]
    waves = wave_of_each(cells)
    return replace(plan, cells=tuple(sorted(cells, key=lambda cell: (waves[cell.id.key], _is_tried(states, cell)))))


def let_go(plan: Plan, found: Sequence[Standing], store: Store, names: Collection[str]) -> None:
    """Release what killed jobs of these submissions were computing, for a process that is in no queue itself."""
    pairs = zip(plan.cells, found, strict=True)
    release_claims((cell for cell, each in pairs if each.state in ("lost", "missing")), store, names)


def _is_tried(states: Mapping[str, Standing], cell: Cell) -> bool:
    standing = states[cell.id.key]
    return standing.state in ("failed", "lost") and standing.attempts > 0


def _check_open(cell: Cell, standing: Standing, queue: bool) -> None:
    if standing.state == "done":
        raise UserError(f"{cell.id.name} is done. Expected: a cell that failed or is missing; see espalier status.")
    if queue and standing.state in IN_QUEUE:
        raise UserError(
            f"{cell.id.name} is {standing.state}, job {standing.job}. Expected: a cell that is in no queue."
        )


def with_inputs(plan: Plan, keys: set[str], there: set[str]) -> set[str]:
    """Return the cells and all that they need and that is not there: inputs come before what needs them."""
    chosen = set(keys)
    for cell in reversed(plan.cells):
        if cell.id.key in chosen:
            chosen |= {up.key for up in cell.inputs.values()} - there
    return chosen


def _add_lacking(plan: Plan, states: Mapping[str, Standing], chosen: set[str], there: set[str]) -> None:
    """Add the cells whose jobs found an input missing, if nothing that they need is missing by now."""
    lacking: set[str] = set()
    for cell in plan.cells:
        standing, needed = states[cell.id.key], {up.key for up in cell.inputs.values()}
        lacked = standing.state == "missing" and standing.message.startswith(_LACKED)
        if lacked and needed <= there | lacking:
            lacking.add(cell.id.key)
    chosen |= lacking


def _add_dependants(plan: Plan, chosen: set[str], there: set[str]) -> None:
    """Add the cells that wait for chosen ones and for nothing else that is missing."""
    for cell in plan.cells:
        needed = {up.key for up in cell.inputs.values()}
        if cell.id.key not in there and needed & chosen and needed <= chosen | there:
            chosen.add(cell.id.key)
