"""Lanczos runs on disk: what a killed process loses is at most the steps since the last save.

One folder per run: its basis in pieces of plain numbers, written once each, and `state.h5`, sealed, which names the
pieces with their digests and is replaced last. A kill between the two leaves the state before.
"""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from data.hdf5 import (
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
from suite.saved_tensors import read_tensor, write_tensor

_PIECE_BYTES = 256 << 20  # held twice in memory while it is written
_STATE = "state.h5"


def save_run(run: LanczosRun, folder: Path, identity: str) -> None:
    """Write what a run has more than its folder; the folder is made when there is none.

    Args:
        run: between two steps.
        folder: of this run alone.
        identity: of operator and start vector; `load_run` refuses another.

    Raises:
        OSError: the disk is full or the folder cannot be written; the state before is untouched.

    Cost: the rows that are new, and one vector or two.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder)
    snapshot = run.snapshot()
    pieces: list[dict[str, Any]] = _pieces(folder) if (folder / _STATE).exists() else []
    begin = pieces[-1]["end"] if pieces else 0
    if begin > run.basis.num_rows:
        return  # a late copy of this run: another worker has saved more of it
    step = max(1, _PIECE_BYTES // (run.dim * run.basis.placement.dtype.itemsize))
    for first in range(begin, run.basis.num_rows, step):
        last = min(first + step, run.basis.num_rows)
        pieces.append({"end": last, **write_tensor(folder, f"rows-{first}-{last}.bin", run.basis.stored(first, last))})
    vectors = write_tensor(folder, f"vectors-{run.num_lanczos_steps}.bin", snapshot.vectors.cpu())
    facts = {"identity": identity, "status": snapshot.status, "pieces": pieces, "vectors": vectors}

    def build(file: h5py.File) -> None:
        write_text(file, "facts", json.dumps(facts))
        write_array(file, "diagonal", snapshot.diagonal)
        write_array(file, "residual_norms", snapshot.residual_norms)
        write_array(file, "start_norm", np.float64(snapshot.start_norm))

    write_sealed(folder / _STATE, build)
    named = {piece["name"] for piece in [*pieces, vectors]}
    for path in folder.glob("*.bin"):
        if path.name not in named:
            path.unlink()


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
    path = folder / _STATE
    if not path.exists():
        return None
    with open_sealed(path) as file:
        facts = json.loads(read_text(file, "facts"))
        if facts["identity"] != identity:
            raise refusal(path, "is a run of another operator", "the network and data it was begun with")
        values = (read_array(file, "diagonal", ndim=1), read_array(file, "residual_norms", ndim=1))
        start_norm = float(read_array(file, "start_norm"))
    vectors = read_tensor(folder, facts["vectors"]).to(device)
    rows = torch.cat([read_tensor(folder, piece) for piece in facts["pieces"]])
    if rows.dtype != placement.dtype:
        raise refusal(path, f"keeps its basis as {rows.dtype}", f"{placement.dtype}")
    return LanczosRun.restored(Snapshot(*values, start_norm, facts["status"], vectors), rows, placement)


def _pieces(folder: Path) -> list[dict[str, Any]]:
    with open_sealed(folder / _STATE) as file:
        pieces: list[dict[str, Any]] = json.loads(read_text(file, "facts"))["pieces"]
        return pieces
