"""inline: a for-loop in this process. The reference: every other launcher must give the same records."""

from collections.abc import Callable
from pathlib import Path

from launchers._events import Advanced, Finished, Report, Started
from launchers._schedule import Schedule
from suite.attempt import Outcome, attempt
from suite.environment import gpu_is_lost
from suite.errors import UserError
from suite.plan import Cell, Plan
from suite.store import Store

NAME = "inline"
DESCRIPTION = "one cell after the other in this process; no extra library"


def run(plan: Plan, folder: Path, *, workers: int, report: Report) -> list[Outcome]:
    """Run all cells of a plan that are not committed yet.

    Args:
        plan: what to run.
        folder: the study's folder.
        workers: ignored; there is one.
        report: called with every event.

    Returns:
        One outcome per cell, in the plan's order.

    Raises:
        UserError: the folder takes no more files, or a cell has taken the GPU from this process.
    """
    del workers
    schedule = Schedule(plan, Store(folder))
    for outcome in list(schedule.outcomes.values()):
        report(Finished(outcome))
    while (cell := schedule.next()) is not None:
        report(Started(cell))
        outcome = attempt(cell, folder, progress=_progress_of(cell, report))
        for ended in schedule.finish(outcome):
            report(Finished(ended))
        if outcome.status == "failed" and not schedule.finished and gpu_is_lost():
            raise UserError(
                f"{cell.title} has failed ({outcome.message}), and every later cell of this process would: its GPU is "
                "lost to it. Run the same command again with --launcher ray, which has a process for each cell."
            )
    return [schedule.outcomes[cell.id.key] for cell in plan.cells]


def _progress_of(cell: Cell, report: Report) -> Callable[[float, str], None]:
    return lambda fraction, text: report(Advanced(cell, fraction, text))
