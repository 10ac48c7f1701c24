"""Cells of one element in children of the job's process, one or several at a time; a free child takes the next one.

Children are started as the ranks of a cell are (suite.child_process): signals are not for them, and when the job's
process dies, so do they. It computes nothing itself, and no GPU is used by it: it passes on what Slurm tells it (save,
stop), waits until all have saved, and leaves once. A child that is gone, or has lost its GPU, is followed by another
one. The cell that it was at is tried once more when the others have ended, alone.
"""

import os
import platform
import selectors
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable, Sequence
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
SAVE_S = 60.0  # for the other cells to save, once one was refused its place in the folder
MOST_STARTS = 3  # of a child for one cell, if it is gone each time before it has begun it


def run_at_once(element: Element, cells: Sequence[Cell], at_once: int) -> int:
    """Run cells of an element, none of which needs another; return how many have no record in the end.

    Args:
        element: whose notice is passed on.
        cells: in the order in which they are handed out.
        at_once: at a time. One alone sees all GPUs of the job, each of several sees one.

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
    if pack.refused:
        raise UserError(pack.refused)
    if element.saved or pack.waiting or pack.lost:
        few = list(element.saved.values())
        raise Interrupted(few[0] if len(few) == 1 else f"{len(few)} cells" if few else "the cells before it")
    return pack.num_failed


@dataclass
class _Child(ChildProcess):
    """A child, and the cell that it was given, if any, since when, and whether it has begun it."""

    cell: Cell | None = None
    begin_s: float = 0.0
    has_begun: bool = False


@dataclass
class _Pack:
    """The cells of one element, and the children that compute them, by their places.

    Attributes:
        lost: cells that lost their child while others were computed, to be tried alone.
        is_alone: these are what is tried now.
        refused: why the folder takes no more files.
        num_gone: key of a cell -> children that it has lost.
    """

    element: Element
    waiting: deque[Cell]
    at_once: int
    children: dict[int, _Child] = field(default_factory=dict)
    num_failed: int = 0
    lost: list[Cell] = field(default_factory=list)
    is_alone: bool = False
    refused: str = ""
    num_gone: Counter[str] = field(default_factory=Counter)
    _told_stop: bool = False
    _end_s: float = 0.0

    def run(self) -> None:
        """Return when no cell is at work and none may be begun, or when a refused one was waited for long enough."""
        while not (self.refused and time.monotonic() >= self._end_s):
            self._pass_on()
            self._miss()
            while self.waiting and not self._is_leaving and (place := self._free_place()) is not None:
                self._hand_out(place, self.waiting.popleft())
            if not self.waiting:
                self._end_idle()
            if self.element.at_work:
                self._hear()
            elif self.lost and not self._is_leaving:
                self.waiting, self.lost = deque(self.lost), []
                self.is_alone, self.at_once = True, 1
            else:
                return

    @property
    def _is_leaving(self) -> bool:
        """Return whether no cell may be begun: the job was warned, and would find more done when it comes back."""
        return bool(self.refused) or (self.element.notice.stop and bool(self.element.num_done or self.element.saved))

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
        free = [place for place in range(self.at_once) if place not in self.children]
        return next(iter((*self._idle(), *free)), None)

    def _idle(self) -> list[int]:
        return [place for place, child in self.children.items() if child.cell is None]

    def _end_idle(self) -> None:
        """End children that have nothing more to do: what memory they hold, the others may need."""
        end_all([self.children.pop(place) for place in self._idle()])

    def _hand_out(self, place: int, cell: Cell) -> None:
        if place not in self.children:
            element, folder = self.element, self.element.folder
            assignment = {"study": str(folder.study), "submission": folder.name, "stop": self._told_stop}
            assignment |= {"array": element.number, "index": element.index}
            variables = _gpu_of(place) if self.at_once > 1 else {}
            self.children[place] = _Child(*started(MODULE, assignment, variables=variables))
        child = self.children[place]
        child.cell, child.begin_s, child.has_begun = cell, time.monotonic(), False
        self.element.begin(cell)
        child.tell(cell.id.key)

    def _hear(self) -> None:
        """Wait for a word, or for a moment; then take what all children said."""
        with selectors.DefaultSelector() as selector:
            for child in self.children.values():
                selector.register(child.channel, selectors.EVENT_READ)
            selector.select(LOOK_S)
        for place, child in list(self.children.items()):
            self._take(place, child.words())

    def _miss(self) -> None:
        """Part with children that are gone, idle ones as well: to these no cell must be handed out."""
        for place, child in list(self.children.items()):
            if child.process.poll() is not None:
                self._take(place, child.words())  # it may have said something in its last moment
                self._part_with(place)
                if child.cell is not None:
                    self._lose(child, child.cell)

    def _part_with(self, place: int) -> None:
        if place in self.children:
            end_all([self.children.pop(place)])

    def _take(self, place: int, words: Iterable[Word]) -> None:
        child = self.children[place]
        for word in words:
            if word["event"] == "begun":
                child.has_begun = True
                continue
            cell, child.cell = child.cell, None
            assert cell is not None
            if word["event"] == "ended":
                self._end(cell, word["status"])
            elif word["event"] == "interrupted":
                self.element.interrupt(cell, word["text"])
            elif word["event"] == "refused":
                self._refuse(cell, word["text"])
            else:  # it was told to stop before it had begun
                self._put_back(cell)
            if word.get("gpu_is_lost"):
                self._part_with(place)

    def _end(self, cell: Cell, status: str) -> None:
        self.element.end(cell, status)
        self.num_failed += status not in WELL

    def _put_back(self, cell: Cell) -> None:
        self.element.put_back(cell)
        self.waiting.appendleft(cell)

    def _refuse(self, cell: Cell, text: str) -> None:
        """Begin no more cells, and let those at work save what they may."""
        self.element.put_back(cell)
        if not self.refused:
            self.refused, self._end_s = text, time.monotonic() + SAVE_S
            self.element.notice.stop = True

    def _lose(self, child: _Child, cell: Cell) -> None:
        """Decide on the cell of a child that is gone; it may have committed the record, and not said so."""
        if child.was_killed:
            time.sleep(GRACE_S)
        self.num_gone[cell.id.key] += 1
        if self.element.store.path(cell.id).exists():
            self._conclude(child, Outcome(cell.id, "done"), cell)
        elif not child.has_begun and self.num_gone[cell.id.key] < MOST_STARTS:
            self._put_back(cell)
        elif child.has_begun and not self.is_alone:
            why = f"its process was ended {child.ending}; it is tried once more, alone"
            print(f"{cell.title}: {why}", file=sys.stderr, flush=True)
            self.element.tell({"event": "lost", "cell": cell.id.key, "message": why})
            self.element.put_back(cell)
            self.lost.append(cell)
        else:
            outcome = Outcome(cell.id, "failed", self._obituary(child))
            with suppress(OSError):  # the log is how `espalier status` knows of it
                self.element.store.log_path(cell.id).write_text(f"{cell.title}\n\n{outcome.message}\n")
            self._conclude(child, outcome, cell)

    def _conclude(self, child: _Child, outcome: Outcome, cell: Cell) -> None:
        wall_s, tries = time.monotonic() - child.begin_s, self.num_gone[cell.id.key]
        self.element.tell_end(Outcome(cell.id, outcome.status, outcome.message, wall_s, platform.node(), tries))
        self._end(cell, outcome.status)

    def _obituary(self, child: _Child) -> str:
        head = f"the process of this cell was ended {child.ending}"
        if not child.has_begun:
            return f"{head} before it began; its job's output may say why, espalier logs names the file"
        if not child.was_killed:
            return f"{head}, alone in its job as well; its job's output may say why, espalier logs names the file"
        return (
            f"{head}, alone in its job as well; is there enough memory? Raise memory_gib of the profile, then run "
            f"espalier retry {self.element.folder.study}"
        )


def _gpu_of(place: int) -> dict[str, str]:
    """Return the variable by which a child sees one of the job's GPUs alone; nothing where there is no choice."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is None:
        given = ",".join(map(str, range(torch.cuda.device_count())))
    listed = [each.strip() for each in given.split(",") if each.strip()]
    return {"CUDA_VISIBLE_DEVICES": listed[place % len(listed)]} if len(listed) > 1 else {}
