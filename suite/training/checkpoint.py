"""Checkpoints of trainings: what a cell that was killed, or warned of its end, goes on from, to the same bits.

The folder of a cell holds, for each of its trainings, the last two states that were saved: plain numbers in a `.bin`,
and a sealed `.h5` that names them by their digest and is written last. A kill between the two leaves the states
before. No result ever needs them: what is missing, damaged or another cell's is computed anew.

Two copies of a cell may save at once (suite.saved_tensors), here even on two kinds of machines. So the name of a state
stands for its training and machine; a copy finds and removes only states of its own kind, and never the two latest.
"""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import torch
from torch import Tensor

from data.hdf5 import FileRefused, exclusive, open_sealed, read_text, refusal, sweep, write_sealed, write_text
from suite.saved_tensors import LOCK, lost_tensors, one_save, read_tensor, remove_tensors, write_tensor

log = logging.getLogger(__name__)
FORMAT = 1  # raise when what is saved means something else
SHORTEST_S = 30.0  # between two saves: what a kill costs at most where saving is cheap
MOST_TIME = 0.02  # the fraction of the time that may go into saving
NUM_KEPT = 2  # of each training: should one be damaged, the one before is there
PATIENCE_S = 5.0  # with another copy that saves just now; a job that was warned has little time


class Interrupted(BaseException):
    """A cell was told to stop and has saved how far it is. No Exception, for the cell has not failed."""


@dataclass
class Notice:
    """What a running cell is told from outside; a signal's handler may write it, a training reads it at each step.

    Attributes:
        save: how far the training is shall be saved now; then it goes on.
        stop: it shall be saved, and the cell be left by `Interrupted`.
    """

    save: bool = False
    stop: bool = False

    def hear(self, word: str) -> None:
        """Take note of what another process says: "save", "stop", or something else."""
        if word == "save":
            self.save = True
        elif word == "stop":
            self.stop = True


@dataclass(frozen=True)
class State:
    """A training between two steps.

    Attributes:
        step: the next one.
        tensors: whatever changes from step to step, on any device.
        facts: the same of what is no tensor; JSON.
    """

    step: int
    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]


@dataclass
class Trainings:
    """The trainings of one cell, one after the other, and where they are saved.

    Attributes:
        folder: of this cell alone, there or not; None: nothing is saved.
        identity: of the cell and of whatever its bits depend on beside; states of another one are not gone on from.
        notice: see Notice.
        clock: seconds from any fixed moment.
        earlier_s: seconds that earlier attempts spent on what this one did not have to compute again.
    """

    folder: Path | None = None
    identity: str = ""
    notice: Notice = field(default_factory=Notice)
    clock: Callable[[], float] = time.monotonic
    earlier_s: float = 0.0
    _begin_s: float = field(init=False)
    _due_s: float = field(init=False)

    def __post_init__(self) -> None:
        """Let the first save wait, so that short cells are never saved."""
        self._begin_s = self.clock()
        self._due_s = self._begin_s + SHORTEST_S

    def stage(self, name: str) -> "Stage | None":
        """Return where one training is saved, or None where nothing is.

        Args:
            name: of the training, one of its own within the cell; letters, digits and underscores.
        """
        return None if self.folder is None else Stage(self, self.folder, name)

    @property
    def wants_a_save(self) -> bool:
        """Return whether a state should be saved now: it is time, or somebody has said so."""
        return self.notice.save or self.notice.stop or self.clock() >= self._due_s

    @property
    def spent_s(self) -> float:
        """Return the seconds that went into the cell so far."""
        return self.earlier_s + self.clock() - self._begin_s

    def tried(self, cost_s: float, is_saved: bool) -> None:
        """Take note of what a save cost. One that failed is not tried again at once, whoever asked for it."""
        self.notice.save = False
        self.notice.stop = self.notice.stop and is_saved
        self._due_s = self.clock() + max(SHORTEST_S, cost_s * (1 / MOST_TIME - 1))


@dataclass(frozen=True)
class Stage:
    """One training of a cell: saves its states, and finds the latest one again."""

    trainings: Trainings
    folder: Path
    name: str

    def latest(self) -> State | None:
        """Return the latest state that is whole and of this very training, or None.

        Each of the others is told in the log; a damaged one is removed.
        """
        tried: set[Path] = set()
        # Listed anew each time: another copy may save, and remove what was listed.
        while left := [path for path in (*self._saved(), *self._saved(self.name)) if path not in tried]:
            try:
                return self._read(left[0])
            except (FileRefused, OSError, KeyError, ValueError, TypeError) as error:
                self._give_up(left[0], error)
                tried.add(left[0])
        return None

    def after(self, step: int, state: Callable[[int], State]) -> None:
        """Save, if it is time or somebody has said so.

        Args:
            step: the next one.
            state: called with the step when there is something to save.

        Raises:
            Interrupted: the cell was told to stop, and this step is saved.

        Cost: one look at the clock. A save takes three times the state in memory for a moment, and at most 2 % of the
            time until the next one is over.
        """
        trainings = self.trainings
        if not trainings.wants_a_save:
            return
        begin_s, is_saved = trainings.clock(), False
        try:
            self._write(state(step))
            is_saved = True
        except OSError as error:  # a full disk is no reason to lose the training
            log.warning("a checkpoint could not be saved, the training goes on: %s", error)
        trainings.tried(trainings.clock() - begin_s, is_saved)
        if trainings.notice.stop:
            raise Interrupted(f"{self.name} at step {step}")

    @property
    def _identity(self) -> str:
        return f"format {FORMAT} {self.name} of {self.trainings.identity}"

    @property
    def _stem(self) -> str:
        return f"{self.name}-{hashlib.sha256(self._identity.encode()).hexdigest()[:8]}"

    def _saved(self, stem: str = "") -> list[Path]:
        """Return the files of all states there are, of this very training unless a stem is given, the latest first."""
        found = self.folder.glob(f"{stem or self._stem}-*.h5")
        return sorted(found, key=lambda path: path.stem, reverse=True)

    def _give_up(self, path: Path, error: Exception) -> None:
        """Tell why a state is not gone on from, and remove it if it will never be."""
        if not path.exists():
            return  # another copy has saved two later ones
        log.warning("a checkpoint is not gone on from: %s", str(error) or type(error).__name__)
        is_ours = path.name.startswith(f"{self._stem}-")
        may_come_back = isinstance(error, OSError) or isinstance(error.__cause__, OSError)  # the disk, that is
        if is_ours and not may_come_back:
            _remove(path)

    def _write(self, state: State) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        sweep(self.folder)
        with exclusive(self.folder / LOCK, PATIENCE_S):
            with one_save(self.folder, self._named) as writer:
                path = self._commit(state, writer)
            for old in self._saved()[NUM_KEPT:]:
                _remove(old)
            remove_tensors(self.folder, lost_tensors(self.folder, path) - self._named())

    def _commit(self, state: State, writer: str) -> Path:
        """Write the numbers, then the state that names them, and return its file."""
        stem = f"{self._stem}-{state.step:012}"
        facts = {
            "identity": self._identity,
            "step": state.step,
            "facts": dict(state.facts),
            "spent_s": self.trainings.spent_s,
            "tensors": described(state.tensors),
            "piece": write_tensor(self.folder, stem, writer, packed(state.tensors)),
        }

        def build(file: h5py.File) -> None:
            write_text(file, "facts", json.dumps(facts))

        path = self.folder / f"{stem}-{writer}.h5"
        write_sealed(path, build)
        return path

    def _named(self) -> set[str]:
        """Return the files of all states' numbers: both have one name but for its end."""
        return {path.with_suffix(".bin").name for path in self.folder.glob("*.h5")}

    def _read(self, path: Path) -> State:
        with open_sealed(path) as file:
            facts = json.loads(read_text(file, "facts"))
        if facts["identity"] != self._identity:
            raise refusal(path, f"is of {facts['identity']!r}", repr(self._identity))
        content = read_tensor(self.folder, facts["piece"])
        self.trainings.earlier_s = max(self.trainings.earlier_s, facts["spent_s"])
        return State(facts["step"], dict(unpacked(content, facts["tensors"])), facts["facts"])


def _remove(path: Path) -> None:
    """Remove a state; what names the numbers goes first."""
    for each in (path, path.with_suffix(".bin")):
        with suppress(OSError):  # a leftover does no harm and goes with the folder
            each.unlink()


def packed(tensors: Mapping[str, Tensor]) -> Tensor:
    """Return all tensors' bytes, one after the other, on the CPU; so any dtype is written the same way."""
    flat = [value.detach().cpu().contiguous().reshape(-1) for value in tensors.values()]
    return torch.cat([each.view(torch.uint8) for each in flat])


def described(tensors: Mapping[str, Tensor]) -> list[Any]:
    """Return what `packed` does not hold of tensors: their names, types and shapes; JSON."""
    return [[key, str(value.dtype), list(value.shape)] for key, value in tensors.items()]


def unpacked(content: Tensor, words: list[Any]) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors that were `packed`, by name; words: what `described` said of them."""
    begin = 0
    for name, word, shape in words:
        dtype = getattr(torch, word.removeprefix("torch."))
        empty = torch.empty(shape, dtype=dtype)
        end = begin + empty.numel() * empty.element_size()
        # a copy, because a view of another dtype has to begin at a multiple of its size
        yield name, content[begin:end].clone().view(dtype).reshape(shape)
        begin = end
