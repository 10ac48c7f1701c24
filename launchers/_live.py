"""What a person sees while cells run: one live table on a terminal, one plain line per cell elsewhere."""

import re
import time
from collections import Counter
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table

from launchers._events import Advanced, Event, Finished, Said, Started
from suite.attempt import Outcome
from suite.curvature.pace import duration
from suite.plan import Cell, Plan
from suite.training.pace import GOES_ON

COLUMNS = ("done", "cached", "running", "failed", "waiting")
LEAST_DONE = 0.1  # cells, before a guess at the remaining time is worth its line
_JOB = re.compile(r"^its job \S+ ")  # cells that are lost by one cause had many jobs


class Display:
    """Shows the events of one run. Use it as a context, and its `report` as the launcher's."""

    def __init__(self, plan: Plan, console: Console) -> None:
        """Show nothing yet."""
        self.console = console
        self.cells = {cell.id.key: cell for cell in plan.cells}
        self.running: dict[str, tuple[Cell, str]] = {}
        self.ended: dict[str, str] = {}  # key -> status
        self._failed: dict[tuple[str, str], list[Outcome]] = {}  # by status and cause
        self._found: dict[str, float] = {}  # key -> the part of a cell that an earlier attempt had done
        self._fractions: dict[str, float] = {}  # key -> how far it is
        self.start_s = time.monotonic()
        self._live = Live(console=console, get_renderable=self._table, refresh_per_second=4, transient=True)

    def __enter__(self) -> "Display":
        """Start the live table where there is a terminal."""
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the terminal as it was."""
        self._live.stop()

    def report(self, event: Event) -> None:
        """Take one event of the launcher."""
        if isinstance(event, Started):
            self.running[event.cell.id.key] = (event.cell, "")
        elif isinstance(event, Advanced):
            self.running[event.cell.id.key] = (event.cell, f"{event.fraction:4.0%} {event.text}")
            self._fractions[event.cell.id.key] = event.fraction
            if event.text.startswith(GOES_ON):
                self._found[event.cell.id.key] = event.fraction
        elif isinstance(event, Said):
            self.console.print(event.text, markup=False, highlight=False, soft_wrap=True)
        else:
            self._finish(event)

    def summary(self) -> str:
        """Return one line about the whole run."""
        counts = Counter(self.ended.values())
        parts = [f"{counts[status]} {status.replace('_', ' ')}" for status in ("done", "cached") if counts[status]]
        lost = counts["failed"] + counts["upstream_failed"]
        parts += [f"{lost} failed"] if lost else []
        return f"{len(self.cells)} cells: {', '.join(parts) or 'none'} in {duration(time.monotonic() - self.start_s)}"

    @property
    def failures(self) -> list[str]:
        """Return one line for each cause, however many cells failed by it, and one for all that need a failed cell."""
        return [self._failure(*outcomes) for outcomes in self._failed.values()]

    def _failure(self, first: Outcome, *others: Outcome) -> str:
        cell = self.cells[first.cell.key]
        more = f" and {len(others)} more" if others else ""
        differ = first.status == "upstream_failed" and any(each.message != first.message for each in others)
        message = "need what failed" if differ else first.message
        return f"{cell.id.name} ({cell.title}){more}: {message}"

    def _finish(self, event: Finished) -> None:
        outcome = event.outcome
        cell = self.cells[outcome.cell.key]
        self.running.pop(outcome.cell.key, None)
        self.ended[outcome.cell.key] = outcome.status
        if outcome.status in ("failed", "upstream_failed"):
            cause = _JOB.sub("", outcome.message) if outcome.status == "failed" else ""
            self._failed.setdefault((outcome.status, cause), []).append(outcome)
        if not self.console.is_terminal and outcome.status != "cached":
            tries = f", try {outcome.attempts}" if outcome.attempts > 1 else ""
            text = f" {outcome.message}" if outcome.message else ""
            head = f"[{len(self.ended)}/{len(self.cells)}] {outcome.status} {outcome.wall_s:.1f} s{tries}"
            self.console.print(f"{head} {cell.title}{text}", markup=False, highlight=False, soft_wrap=True)

    def _table(self) -> Table:
        table = Table("cells", *COLUMNS, title=self._remaining(), title_justify="left")
        kinds = dict.fromkeys(cell.id.kind for cell in self.cells.values())
        for kind in kinds:
            keys = [key for key, cell in self.cells.items() if cell.id.kind == kind]
            counts = Counter(self.ended[key] for key in keys if key in self.ended)
            running = sum(key in self.running for key in keys)
            failed = counts["failed"] + counts["upstream_failed"]
            waiting = len(keys) - running - counts.total()
            table.add_row(kind, *map(str, (counts["done"], counts["cached"], running, failed, waiting)))
        for cell, text in list(self.running.values())[:8]:
            table.caption = f"{table.caption or ''}{cell.title} {text}\n"
        return table

    def _remaining(self) -> str:
        """Count cells, running ones by their fraction; what an earlier run did of a cell took no time of this one."""
        done = {key: 1.0 for key, status in self.ended.items() if status == "done"}
        done |= {key: self._fractions.get(key, 0.0) for key in self.running}
        left = len(self.cells) - len(self.ended) - sum(done[key] for key in self.running)
        ours = sum(max(0.0, fraction - self._found.get(key, 0.0)) for key, fraction in done.items())
        elapsed_s = time.monotonic() - self.start_s
        guess = f", about {duration(elapsed_s / ours * left)} left" if ours >= LEAST_DONE and left else ""
        return f"{len(self.ended)} of {len(self.cells)} cells, {duration(elapsed_s)}{guess}"
