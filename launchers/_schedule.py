"""Which cells may run now: inputs committed, the longest way ahead first; what follows a failure is never tried."""

import heapq
from dataclasses import replace

from suite.attempt import Outcome
from suite.claim import live_owner
from suite.extensions import load
from suite.plan import Cell, Plan
from suite.store import Store


class Schedule:
    """The state of a plan while it runs."""

    def __init__(self, plan: Plan, store: Store) -> None:
        """Look up what is committed already; everything else waits for its inputs."""
        self._store = store
        self.cells = {cell.id.key: cell for cell in plan.cells}
        self.outcomes: dict[str, Outcome] = {}
        self._order = {key: index for index, key in enumerate(self.cells)}
        self._dependants: dict[str, list[str]] = {key: [] for key in self.cells}
        for cell in plan.cells:
            if store.is_committed(cell.id):
                self.outcomes[cell.id.key] = Outcome(cell.id, "cached")
        self._missing: dict[str, set[str]] = {}
        for key, cell in self.cells.items():
            for upstream in cell.inputs.values():
                self._dependants[upstream.key].append(key)
            if key not in self.outcomes:
                self._missing[key] = {up.key for up in cell.inputs.values() if up.key not in self.outcomes}
        self._heights = self._all_heights()
        self._ready: list[tuple[int, int, int, str]] = []
        for key, missing in self._missing.items():
            if not missing:
                self._push(key)

    @property
    def finished(self) -> bool:
        """Return whether every cell has an outcome."""
        return len(self.outcomes) == len(self.cells)

    def next(self) -> Cell | None:
        """Take the cell to run next, or None while all that is left waits for running cells.

        One that somebody else computes comes last, so that two drivers of one folder share the work.
        """
        claimed: list[tuple[int, int, int, str]] = []
        while self._ready:
            entry = heapq.heappop(self._ready)
            if live_owner(self._store.claim_path(self.cells[entry[-1]].id)) is None:
                break
            claimed.append(entry)
        else:
            if not claimed:
                return None
            entry = claimed.pop(0)
        for each in claimed:
            heapq.heappush(self._ready, each)
        return self.cells[entry[-1]]

    def again(self, cell: Cell) -> None:
        """Put a cell back whose try was lost with its worker."""
        self._push(cell.id.key)

    def finish(self, outcome: Outcome) -> list[Outcome]:
        """Record an outcome; return it and, after a failure, those of all cells that needed it."""
        key = outcome.cell.key
        self.outcomes[key] = outcome
        done = outcome.status in ("done", "cached")
        ended = [outcome]
        for dependant in self._dependants[key]:
            if dependant in self.outcomes:
                continue
            if done:
                self._missing[dependant].discard(key)
                if not self._missing[dependant]:
                    self._push(dependant)
            else:
                reason = outcome.cell.name if outcome.status == "failed" else outcome.message.removeprefix("needs ")
                lost = Outcome(self.cells[dependant].id, "upstream_failed", f"needs {reason}", attempts=0)
                ended += self.finish(replace(lost))
        return ended

    def _push(self, key: str) -> None:
        priority = getattr(load("suite.cells", self.cells[key].id.kind, "kind of cell"), "PRIORITY", 0)
        heapq.heappush(self._ready, (-priority, -self._heights[key], self._order[key], key))

    def _all_heights(self) -> dict[str, int]:
        """Return the length of the longest chain of cells that wait for each cell."""
        heights: dict[str, int] = {}
        for key in reversed(self.cells):
            heights[key] = max((1 + heights[after] for after in self._dependants[key]), default=0)
        return heights
