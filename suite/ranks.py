"""The processes of a cell that several compute together, seen from the one that was given the cell.

It computes nothing itself: it starts the ranks, passes on what it is told (save, stop) and what they tell (progress,
the end), and ends them all as soon as one has failed or is gone, or itself is left (suite.child_process). When this
process dies, however it dies, the ranks end by themselves.
"""

import selectors
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from suite.child_process import ChildProcess, Word, end_all, started
from suite.environment import best_device
from suite.errors import UserError
from suite.plan import Cell
from suite.training.checkpoint import Interrupted, Notice

TIMEOUT_S = 1800.0  # within which a rank that is silent is lost: others may wait while the first one saves
LOOK_S = 0.1  # between two looks at what this process was told
GRACE_S = 1.0  # for other ranks to say what happened, once one has failed
LAST_WORDS = 2000  # bytes of a rank's own output that go into the log


class RankLost(ChildProcessError):
    """A rank has ended without a word: killed, or crashed below Python."""


class RankFailed(RuntimeError):
    """A rank has met an error that is no user's; this says which, as TYPE: MESSAGE."""


def run_in_ranks(
    cell: Cell,
    folder: Path,
    *,
    notice: Notice,
    progress: Callable[[float, str], None],
    timeout_s: float | None = None,
    stream: bool | None = None,
) -> None:
    """Have a claimed cell computed by its ranks, and committed by the first of them.

    Args:
        cell: with more than one process.
        folder: the study's.
        notice: what this process is told while they run; it is passed on.
        progress: called with what the first rank tells.
        timeout_s: within which a silent rank is lost; None: TIMEOUT_S.
        stream: see suite.attempt.

    Raises:
        UserError: there are fewer GPUs than processes, or a rank met what its user can mend.
        RankLost: a rank was killed.
        RankFailed: a rank met any other error.
        OSError: the first rank could not write.
        Interrupted: the cell was told to stop, and is saved.

    Cost: some seconds for the start of Python, torch and a GPU in each rank.
    """
    check_gpus(cell)
    with tempfile.TemporaryDirectory(prefix="ranks-", ignore_cleanup_errors=True) as meeting:
        assignment: Word = {"cell": asdict(cell), "folder": str(folder), "meeting": meeting, "stop": notice.stop}
        assignment |= {"timeout_s": timeout_s or TIMEOUT_S, "stream": stream}
        with _started(cell.processes, assignment) as ranks:
            ranks.told_stop = assignment["stop"]
            ranks.watch(notice, progress)


def check_gpus(cell: Cell) -> None:
    """Refuse a cell whose processes cannot have a GPU each, where GPUs compute.

    Raises:
        UserError: this process sees fewer.
    """
    seen = torch.cuda.device_count()
    if cell.processes > 1 and best_device() == "cuda" and seen < cell.processes:
        raise UserError(
            f"{cell.title}: training.data_parallel = {cell.processes}, but GPUs here: {seen}. Expected: one for "
            f"each process; set training.data_parallel = {seen}, or run where there are more."
        )


@dataclass
class _Rank(ChildProcess):
    """One rank at work.

    Attributes:
        output: what it prints; the first one's is shown instead.
        end: its last word, or how its process ended without one.
    """

    rank: int
    output: Path
    end: Word | None = None

    def lost(self, size: int) -> RankLost:
        """Return what to say of a process that ended without a word."""
        hint = "; is there enough memory?" if self.was_killed else ""
        error = RankLost(f"process {self.rank} of {size} of this cell was ended {self.ending}{hint}")
        with suppress(OSError):
            if shown := self.output.read_bytes()[-LAST_WORDS:].decode(errors="replace").strip():
                error.add_note(f"It showed:\n{shown}\n\n{error}")  # the last line of a log says what happened
        return error


@dataclass
class _Ranks:
    """All ranks of a cell."""

    ranks: list[_Rank] = field(default_factory=list)
    told_stop: bool = False

    def watch(self, notice: Notice, progress: Callable[[float, str], None]) -> None:
        """Return when the first rank has committed the cell; see run_in_ranks."""
        with selectors.DefaultSelector() as selector:
            for rank in self.ranks:
                selector.register(rank.channel, selectors.EVENT_READ, rank)
            deadline_s: float | None = None
            while not self._is_over(deadline_s):
                self._pass_on(notice)
                for key, _ in selector.select(LOOK_S):
                    self._hear(key.data, progress)
                    if key.data.process.poll() is not None:
                        selector.unregister(key.fileobj)
                self._miss()
                if deadline_s is None and self._has_failed():
                    deadline_s = time.monotonic() + GRACE_S
        if self.ranks[0].end != {"event": "done"}:
            raise self._error()

    def _pass_on(self, notice: Notice) -> None:
        if notice.save:
            notice.save = False
            self.ranks[0].tell("save")
        if notice.stop and not self.told_stop:
            self.ranks[0].tell("stop")
        self.told_stop = notice.stop

    def _hear(self, rank: _Rank, progress: Callable[[float, str], None]) -> None:
        for word in rank.words():
            if word["event"] == "progress":
                progress(word["fraction"], word["text"])
            else:
                rank.end = word

    def _miss(self) -> None:
        """Take note of processes that ended without a word."""
        for rank in self.ranks:
            if rank.end is None and rank.process.poll() is not None:
                self._hear(rank, lambda *_: None)  # it may have said it in its last moment
                rank.end = rank.end or {"event": "lost", "at_s": time.monotonic()}

    def _has_failed(self) -> bool:
        """Return whether a rank has failed or is gone, so that the cell will not be done."""
        return any(rank.end is not None and rank.end["event"] != "done" for rank in self.ranks)

    def _is_over(self, deadline_s: float | None) -> bool:
        first = self.ranks[0].end
        if first is not None and first["event"] in ("done", "interrupted"):
            return True
        return all(rank.end for rank in self.ranks) or (deadline_s is not None and time.monotonic() >= deadline_s)

    def _error(self) -> BaseException:
        """Return what is to be raised: the other ranks' troubles often follow from those of the one that is gone."""
        ends = [(rank, rank.end) for rank in self.ranks if rank.end is not None and rank.end["event"] != "done"]
        if ends[0][1]["event"] == "interrupted":
            return Interrupted(ends[0][1]["text"])
        for rank, end in ends:
            if end["event"] == "lost":
                return rank.lost(len(self.ranks))
        return _error_of(min((end for _, end in ends), key=lambda end: float(end["at_s"])))


@contextmanager
def _started(size: int, assignment: Mapping[str, Any]) -> Iterator[_Ranks]:
    """Yield ranks at work, none of which is left afterwards."""
    ranks = _Ranks()
    try:
        for rank in range(size):
            ranks.ranks.append(_start(rank, {**assignment, "rank": rank}))
        yield ranks
    finally:
        end_all(ranks.ranks)


def _start(rank: int, assignment: Mapping[str, Any]) -> _Rank:
    """Start one rank and tell it what to do; what it prints is the first one's alone to show."""
    output = Path(assignment["meeting"]) / f"output-{rank}"
    with output.open("wb") as quiet:
        return _Rank(*started("suite.rank_process", assignment, None if rank == 0 else quiet), rank, output)


def _error_of(word: Word) -> Exception:
    """Return the error that a rank has met, with its own traceback as a note."""
    error: Exception
    if word["kind"] == "user":
        error = UserError(word["text"])
    elif word["kind"] == "system":
        error = OSError(*word["arguments"])
    else:
        error = RankFailed(word["text"])
    error.add_note(word["trace"])
    return error
