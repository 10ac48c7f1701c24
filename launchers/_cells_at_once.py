"""Several cells of one element at a time: each in a child of the job's process, and a free child takes the next one.

Children are started as the ranks of a cell are (suite.child_process): signals are not for them, and when the job's
process dies, so do they. It computes nothing itself: it passes on what Slurm tells it (save, stop), waits until all
have saved, and leaves once. A child that is killed fails its own cell, and another one takes its place.
"""

import os
import platform
import selectors
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import torch

from launchers._element import WELL, Element
from suite.attempt import Outcome
from suite.child_process import ChildProcess, Word, end_all, started
from suite.errors import UserError
from suite.plan import Cell
from suite.training.checkpoint import Interrupted

MODULE = "launchers._cell_process"
LOOK_S = 0.1  # between two looks at what Slurm told
GRACE_S = 2.0  # when Slurm ends a job, a child may go a moment before this process does: then nobody is to blame


def run_at_once(element: Element, cells: Sequence[Cell], at_once: int) -> int:
    """Run cells of an element, none of which needs another; return how many have no record in the end.

    Args:
        element: whose notice is passed on.
        cells: in the order in which they are handed out.
        at_once: at a time, at least 2.

    Raises:
        Interrupted: the cells at work were told to stop, and are saved.
        UserError: the folder takes no more files.

    Cost: the start of Python, torch and a GPU for each child, and its memory; data sets are read by each.
    """
    pack = _Pack(element, deque(cells), at_once)
    try:
        pack.run()
    finally:
        end_all(list(pack.children.values()))
    if element.saved or pack.waiting:
        few = list(element.saved.values())
        raise Interrupted(few[0] if len(few) == 1 else f"{len(few)} cells" if few else "the cells before it")
    return pack.num_failed


@dataclass
class _Child(ChildProcess):
    """A child, and the cell that it computes, if any, since when."""

    cell: Cell | None = None
    begin_s: float = 0.0


@dataclass
class _Pack:
    """The cells of one element, and the children that compute them, by their places."""

    element: Element
    waiting: deque[Cell]
    at_once: int
    children: dict[int, _Child] = field(default_factory=dict)
    num_failed: int = 0
    _told_stop: bool = False

    def run(self) -> None:
        """Return when no cell is at work and none may be begun."""
        while True:
            self._pass_on()
            while self.waiting and not self._is_leaving and (place := self._free_place()) is not None:
                self._hand_out(place, self.waiting.popleft())
            if not self.element.at_work:
                return
            self._hear()

    @property
    def _is_leaving(self) -> bool:
        """Return whether the job was warned, and would find more done when it comes back."""
        return self.element.notice.stop and bool(self.element.num_done or self.element.saved)

    def _pass_on(self) -> None:
        """Pass on what Slurm told. A child that begins later knows of it from the first."""
        notice, words = self.element.notice, []
        if notice.save:
            notice.save = False
            words.append("save")
        if notice.stop and not self._told_stop:
            self._told_stop = True
            words.append("stop")
        for child in self.children.values():
            for word in words:
                child.tell(word)

    def _free_place(self) -> int | None:
        """Return a place whose child computes nothing, or that has none; a child that is there comes first."""
        idle = [place for place, child in self.children.items() if child.cell is None]
        free = [place for place in range(self.at_once) if place not in self.children]
        return next(iter((*idle, *free)), None)

    def _hand_out(self, place: int, cell: Cell) -> None:
        if place not in self.children:
            element, folder = self.element, self.element.folder
            assignment = {"study": str(folder.study), "submission": folder.name, "stop": self._told_stop}
            assignment |= {"array": element.number, "index": element.index}
            self.children[place] = _Child(*started(MODULE, assignment, variables=_gpu_of(place)))
        child = self.children[place]
        child.cell, child.begin_s = cell, time.monotonic()
        self.element.begin(cell)
        child.tell(cell.id.key)

    def _hear(self) -> None:
        """Wait for a word, or for a moment; then take what all children said, and miss those that are gone."""
        with selectors.DefaultSelector() as selector:
            for child in self.children.values():
                selector.register(child.channel, selectors.EVENT_READ)
            selector.select(LOOK_S)
        for place, child in list(self.children.items()):
            is_gone = child.process.poll() is not None  # asked first: it may say something in its last moment
            for word in child.words():
                self._take(child, word)
            if is_gone:
                child.channel.close()
                del self.children[place]
                self._lose(child)

    def _take(self, child: _Child, word: Word) -> None:
        cell, child.cell = child.cell, None
        assert cell is not None
        if word["event"] == "refused":
            raise UserError(word["text"])
        if word["event"] == "interrupted":
            self.element.interrupt(cell, word["text"])
        else:
            self._end(cell, word["status"])

    def _end(self, cell: Cell, status: str) -> None:
        self.element.end(cell, status)
        self.num_failed += status not in WELL

    def _lose(self, child: _Child) -> None:
        """End the cell of a child that was killed; it may have committed the record, and not said so."""
        if child.cell is None:
            return
        if child.was_killed:
            time.sleep(GRACE_S)
        cell, store = child.cell, self.element.store
        outcome = Outcome(cell.id, "done", "", time.monotonic() - child.begin_s, platform.node())
        if not store.path(cell.id).exists():
            outcome = Outcome(cell.id, "failed", self._obituary(child), outcome.wall_s, outcome.host)
            with suppress(OSError):  # the log is how `espalier status` knows of it
                store.log_path(cell.id).write_text(f"{cell.title}\n\n{outcome.message}\n")
        self.element.tell_end(outcome)
        self._end(cell, outcome.status)

    def _obituary(self, child: _Child) -> str:
        head = f"the process of this cell was ended {child.ending}"
        if not child.was_killed:
            return f"{head}; its job's output may say why, espalier logs names the file"
        return (
            f"{head}, with up to {self.at_once} cells at once in its job; is there enough memory? Raise memory_gib of "
            f"the profile or lower cells_at_once, then run espalier retry {self.element.folder.study}"
        )


def _gpu_of(place: int) -> dict[str, str]:
    """Return the variable by which a child sees one of the job's GPUs alone; nothing where there is no choice."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is None:
        given = ",".join(map(str, range(torch.cuda.device_count())))
    listed = [each.strip() for each in given.split(",") if each.strip()]
    return {"CUDA_VISIBLE_DEVICES": listed[place % len(listed)]} if len(listed) > 1 else {}
