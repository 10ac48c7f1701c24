"""Lanczos runs on disk: what a killed process loses is at most the steps since the last save.

One folder per run: its basis in pieces of plain numbers, written once each, and `state.h5`, sealed, which names the
pieces with their digests and is replaced last. A kill between the two leaves the state before.

Two processes may save one run at once: a job that was queued again while its first copy lives, or the same command
twice. A lock makes them take turns where there is one, and nothing hangs on it: no two saves give a file the same name,
and no file is removed that a state may yet name. What a save without a lock can do is take the state some steps back.
"""

import errno
import hashlib
import json
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.hdf5 import (
    FileRefused,
    commit_bytes,
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

_PIECE_BYTES = 256 << 20  # held twice in memory while it is written
_STATE, _LOCK = "state.h5", ".lock"
_PATIENCE_S = 60.0  # with another process that saves the same run; a guess: most saves take less
_LOST_S = 24 * 3600.0  # no save takes so long: a piece of this age that no state names was left by a kill
_DTYPES = {str(dtype): dtype for dtype in (torch.float16, torch.float32, torch.float64)}


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
    with exclusive(folder / _LOCK, _PATIENCE_S) as is_alone:
        before = _State.read(folder)
        if before is not None and before.num_rows >= run.basis.num_rows:
            return  # another process has saved as much of this run, or more
        writer = secrets.token_hex(4)
        try:
            named = _commit(run, folder, identity, before, writer)
        except BaseException:
            with suppress(OSError, FileRefused):  # a full disk gets its room back
                now = _State.read(folder)  # which names them all the same if it came to that
                _remove(folder, _pieces(folder, f"*-{writer}.bin") - (now.names if now else set()))
            raise
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
        piece = _write(folder, f"rows-{first}-{last}-{writer}.bin", run.basis.stored(first, last))
        pieces = [*pieces, {"end": last, **piece}]
    vectors = _write(folder, f"vectors-{run.num_lanczos_steps}-{writer}.bin", snapshot.vectors.cpu())
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
    committed_s = (folder / _STATE).stat().st_mtime  # by the clock of the file system, as the pieces' times are
    found = set()
    for name in _pieces(folder, "*.bin"):
        with suppress(OSError):
            if committed_s - (folder / name).stat().st_mtime > _LOST_S:
                found.add(name)
    if before is not None:
        # Whoever saves without a lock may be about to name rows that stood there, but vectors only of its own.
        found |= before.names if is_alone else {before.facts["vectors"]["name"]}
    return found


def _pieces(folder: Path, pattern: str) -> set[str]:
    """Return the names of pieces there; a name that begins with a dot is what another process writes just now."""
    return {path.name for path in folder.glob(pattern) if not path.name.startswith(".")}


def _remove(folder: Path, names: set[str]) -> None:
    for name in names & _pieces(folder, "*.bin"):  # a state is a file like any: it may name what lies elsewhere
        with suppress(OSError):
            (folder / name).unlink()


def _write(folder: Path, name: str, rows: Tensor) -> dict[str, Any]:
    content = np.ascontiguousarray(rows.numpy()).tobytes()
    commit_bytes(folder / name, content)
    digest = hashlib.sha256(content).hexdigest()
    return {"name": name, "sha256": digest, "shape": list(rows.shape), "dtype": str(rows.dtype)}


def _read(folder: Path, piece: dict[str, Any]) -> Tensor:
    path = folder / piece["name"]
    try:
        content = bytearray(path.read_bytes())
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ESTALE):  # removed, perhaps while it was read
            raise
        content = bytearray()
    if hashlib.sha256(content).hexdigest() != piece["sha256"]:
        raise refusal(path, "is missing or damaged", "the bytes that were saved", "Delete the folder and run again.")
    return torch.frombuffer(content, dtype=_DTYPES[piece["dtype"]]).reshape(piece["shape"])
