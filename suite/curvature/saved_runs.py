"""Lanczos runs on disk: what a killed process loses is at most the steps since the last save.

One folder per run: its basis in pieces of plain numbers, written once each, and `state.h5`, sealed, which names the
pieces with their digests and is replaced last. A kill between the two leaves the state before.

Two processes may save one run at once (suite.saved_tensors). What a save without a lock can do is take the state some
steps back.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from data.hdf5 import (
    FileRefused,
    exclusive,
    open_sealed,
    read_array,
    read_text,
    refusal,
    sweep,
    write_array,
    write_sealed,
    write_text,
)
from suite.curvature.basis import Placement
from suite.curvature.lanczos import LanczosRun, Snapshot
from suite.saved_tensors import LOCK, lost_tensors, one_save, write_tensor
from suite.saved_tensors import read_tensor as _read
from suite.saved_tensors import remove_tensors as _remove

_PIECE_BYTES = 256 << 20  # held twice in memory while it is written
_STATE = "state.h5"
_PATIENCE_S = 60.0  # with another process that saves the same run; a guess: most saves take less


def save_run(run: LanczosRun, folder: Path, identity: str) -> None:
    """Write what a run has more than its folder; the folder is made when there is none.

    Args:
        run: between two steps.
        folder: of this run alone.
        identity: of operator and start vector; `load_run` refuses another.

    Raises:
        FileRefused: the state there is damaged.
        OSError: the disk is full or the folder cannot be written; the state before is untouched.

    Cost: the rows that are new, and one vector or two.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder)
    with exclusive(folder / LOCK, _PATIENCE_S) as is_alone:
        before = _State.read(folder)
        if before is not None and before.num_rows >= run.basis.num_rows:
            return  # another process has saved as much of this run, or more
        with one_save(folder, lambda: _named(folder)) as writer:
            named = _commit(run, folder, identity, before, writer)
        _remove(folder, _left_over(folder, before, is_alone) - named)


def load_run(folder: Path, identity: str, placement: Placement, device: torch.device) -> LanczosRun | None:
    """Return the run as it was last saved, or None where none was.

    Args:
        folder: of this run alone.
        identity: as it was saved under.
        placement: as the run had it.
        device: where the run goes on.

    Raises:
        FileRefused: a file is damaged or missing, or holds another run.
    """
    path, state = folder / _STATE, _State.read(folder)
    while state is not None:
        if state.facts["identity"] != identity:
            raise refusal(path, "is a run of another operator", "the network and data it was begun with")
        try:
            vectors = _read(folder, state.facts["vectors"]).to(device)
            rows = torch.cat([_read(folder, piece) for piece in state.facts["pieces"]])
        except FileRefused:
            found, state = state, _State.read(folder)
            if state is None or state.facts == found.facts:
                raise
            continue  # another process has saved more in between, and removed what it named no more
        if rows.dtype != placement.dtype:
            raise refusal(path, f"keeps its basis as {rows.dtype}", f"{placement.dtype}")
        values = (state.diagonal, state.residual_norms, state.start_norm, state.facts["status"])
        return LanczosRun.restored(Snapshot(*values, vectors), rows, placement)
    return None


@dataclass(frozen=True, eq=False)
class _State:
    """What `state.h5` holds; its facts are identity, status, pieces and vectors."""

    facts: dict[str, Any]
    diagonal: NDArray[np.float64]
    residual_norms: NDArray[np.float64]
    start_norm: float

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        if not (folder / _STATE).exists():
            return None
        with open_sealed(folder / _STATE) as file:
            return cls(
                json.loads(read_text(file, "facts")),
                read_array(file, "diagonal", ndim=1),
                read_array(file, "residual_norms", ndim=1),
                float(read_array(file, "start_norm")),
            )

    @property
    def num_rows(self) -> int:
        return int(self.facts["pieces"][-1]["end"])

    @property
    def names(self) -> set[str]:
        return {piece["name"] for piece in [*self.facts["pieces"], self.facts["vectors"]]}

    def begins(self, run: Snapshot) -> bool:
        """Return whether a run has come by here, to the bit: another number of threads rounds otherwise."""
        k = len(self.diagonal)
        return (
            self.start_norm == run.start_norm
            and np.array_equal(self.diagonal, run.diagonal[:k])
            and np.array_equal(self.residual_norms, run.residual_norms[:k])
        )


def _commit(run: LanczosRun, folder: Path, identity: str, before: _State | None, writer: str) -> set[str]:
    """Write rows, vectors and then the state, and return the names that are in it."""
    snapshot = run.snapshot()
    # Rows of two runs that round otherwise are not orthogonal to each other.
    pieces: list[dict[str, Any]] = before.facts["pieces"] if before is not None and before.begins(snapshot) else []
    begin = pieces[-1]["end"] if pieces else 0
    step = max(1, _PIECE_BYTES // (run.dim * run.basis.placement.dtype.itemsize))
    for first in range(begin, run.basis.num_rows, step):
        last = min(first + step, run.basis.num_rows)
        piece = write_tensor(folder, f"rows-{first}-{last}", writer, run.basis.stored(first, last))
        pieces = [*pieces, {"end": last, **piece}]
    vectors = write_tensor(folder, f"vectors-{run.num_lanczos_steps}", writer, snapshot.vectors.cpu())
    facts = {"identity": identity, "status": snapshot.status, "pieces": pieces, "vectors": vectors}

    def build(file: h5py.File) -> None:
        write_text(file, "facts", json.dumps(facts))
        write_array(file, "diagonal", snapshot.diagonal)
        write_array(file, "residual_norms", snapshot.residual_norms)
        write_array(file, "start_norm", np.float64(snapshot.start_norm))

    write_sealed(folder / _STATE, build)
    return {piece["name"] for piece in [*pieces, vectors]}


def _left_over(folder: Path, before: _State | None, is_alone: bool) -> set[str]:
    """Return the pieces that go when a state has been replaced, unless the new one names them."""
    found = lost_tensors(folder, folder / _STATE)
    if before is not None:
        # Whoever saves without a lock may be about to name rows that stood there, but vectors only of its own.
        found |= before.names if is_alone else {before.facts["vectors"]["name"]}
    return found


def _named(folder: Path) -> set[str]:
    state = _State.read(folder)
    return state.names if state is not None else set()
