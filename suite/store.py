"""The store: a study's folder of committed cells, one immutable file per cell.

A cell's file appears whole under its final name or not at all; its seal (data.hdf5) tells any later damage. What is
committed is the truth: everything else (exit codes, logs, a driver's memory) only explains what is missing.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.hdf5 import FileRefused, open_sealed, sweep, write_sealed
from suite.errors import UserError
from suite.record import SCHEMA, Record, read_record, write_record

_CHECKPOINT = ".checkpoint"


@dataclass(frozen=True)
class CellId:
    """Kind and key of a cell: where its file lies and what must stand in it."""

    kind: str
    key: str  # sha256, 64 hex digits

    @property
    def name(self) -> str:
        """Return KIND-KEY with the first 16 digits: the name in files, logs, tables and pages."""
        return f"{self.kind}-{self.key[:16]}"


@dataclass(frozen=True)
class Store:
    """Committed cells under folder/cells, and beside them what killed cells go on from; logs under folder/logs."""

    folder: Path

    def path(self, cell: CellId) -> Path:
        """Return the file of a cell, there or not."""
        return self.folder / "cells" / f"{cell.name}.h5"

    def checkpoint_path(self, cell: CellId) -> Path:
        """Return the folder of what a killed attempt at the cell goes on from, there or not."""
        return self.folder / "cells" / f"{cell.name}{_CHECKPOINT}"

    def claim_path(self, cell: CellId) -> Path:
        """Return the file, without its number, by which somebody says that he computes the cell (suite.claim)."""
        return self.folder / "cells" / f"{cell.name}.claim"

    def log_path(self, cell: CellId) -> Path:
        """Return the file that explains a failed attempt at the cell."""
        return self.folder / "logs" / f"{cell.name}.log"

    def prepare(self) -> None:
        """Make the folders; remove what killed processes left half-written, and what lies beside committed cells.

        Raises:
            UserError: the folder cannot be made or written.
        """
        try:
            for name in ("cells", "logs"):
                (self.folder / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _not_writable(self.folder, error.strerror) from None
        for folder in (self.folder, self.folder / "cells", self.folder / "logs"):
            if not os.access(folder, os.W_OK | os.X_OK):
                raise _not_writable(folder, "no write permission")
            sweep(folder)
        for checkpoint in (self.folder / "cells").glob(f"*{_CHECKPOINT}"):
            if checkpoint.with_suffix(".h5").exists():
                shutil.rmtree(checkpoint, ignore_errors=True)
        for claim in (self.folder / "cells").glob("*.claim-*"):
            if claim.with_suffix(".h5").exists():
                claim.unlink(missing_ok=True)

    def is_committed(self, cell: CellId) -> bool:
        """Return whether the cell is there and whole.

        Raises:
            FileRefused: its file is there but damaged, or holds another cell.
        """
        if not self.path(cell).exists():
            return False
        with open_sealed(self.path(cell)) as file:
            _check_identity(self.path(cell), file.attrs, cell)
        return True

    def commit(self, cell: CellId, record: Record, config: dict[str, Any]) -> Path:
        """Write the cell's file atomically, then remove its checkpoint.

        Raises:
            OSError: the disk is full or the folder cannot be written; nothing is left behind.
        """
        write_sealed(self.path(cell), lambda file: write_record(file, record, config, cell.key))
        shutil.rmtree(self.checkpoint_path(cell), ignore_errors=True)  # what stays is removed by `prepare`
        return self.path(cell)

    def load(self, cell: CellId) -> Record:
        """Read a committed cell.

        Raises:
            FileRefused: it is missing, damaged or another cell's.
        """
        with open_sealed(self.path(cell)) as file:
            _check_identity(self.path(cell), file.attrs, cell)
            return read_record(file)


def _check_identity(path: Path, attributes: Any, cell: CellId) -> None:
    schema, key = attributes.get("schema"), attributes.get("key")
    if schema != SCHEMA:
        raise FileRefused(f"{path} has schema {schema!r}, this code reads {SCHEMA!r}. Delete it and run again.")
    if key != cell.key:
        raise FileRefused(f"{path} holds the cell {key}, expected {cell.key}. Delete it and run again.")


def _not_writable(folder: Path, reason: str | None) -> UserError:
    return UserError(f"{folder} cannot be written: {reason}. Give a folder of your own with --out DIR.")
