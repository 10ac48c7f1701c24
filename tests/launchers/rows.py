"""A fixed matrix as a source for workers: its operator may do harm once, and leaves behind whose it was."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from suite.curvature.operators import CountedOperator
from suite.curvature.probes import ProbeRequest
from suite.curvature.slq import ProbeResult

DIM = 60


class RowsOperator(CountedOperator):
    """R'R / num_rows for the rows R that it is given. May do something once, at its fourth product."""

    def __init__(self, rows: torch.Tensor, num_rows: int, folder: Path, deed: str, product_s: float) -> None:
        super().__init__(rows.shape[1], rows.dtype, rows.device)
        self.rows, self.num_rows, self.folder, self.deed, self.product_s = rows, num_rows, folder, deed, product_s

    def _products(self, vectors: torch.Tensor) -> torch.Tensor:
        time.sleep(self.product_s)
        if self.num_matvecs >= 4 and self.deed and took_token(self.folder):
            if self.deed == "sleep":
                time.sleep(300)
            os.kill(os.getpid(), signal.SIGKILL if self.deed == "kill" else signal.SIGSTOP)
        return self.rows.T @ (self.rows @ vectors) / self.num_rows


@dataclass(frozen=True)
class RowsSource:
    """Leaves its process's number in the folder. deed: done by one worker, of the last rank, per token there."""

    folder: Path
    deed: str = ""
    product_s: float = 0.0

    def build(self) -> RowsOperator:
        return self.build_shard(0, 1)

    def build_shard(self, rank: int, size: int) -> RowsOperator:
        (self.folder / f"pid-{os.getpid()}").touch()
        rows = torch.randn(100, DIM, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        deed = self.deed if rank == size - 1 else ""
        return RowsOperator(rows.tensor_split(size)[rank], 100, self.folder, deed, self.product_s)


@dataclass(frozen=True)
class WholeSource:
    """Cannot be built in shards."""

    def build(self) -> RowsOperator:
        raise NotImplementedError


def took_token(folder: Path) -> bool:
    for token in sorted(folder.glob("token-*")):
        try:
            token.unlink()
        except FileNotFoundError:  # another worker was faster
            continue
        return True
    return False


def pids(folder: Path) -> list[int]:
    """Return the numbers of the processes that built an operator."""
    return [int(path.name.removeprefix("pid-")) for path in folder.glob("pid-*")]


def requests(number: int, steps: int = 12) -> list[ProbeRequest]:
    return [ProbeRequest(5, index, "rademacher", steps) for index in range(number)]


def bits(results: list[ProbeResult]) -> list[tuple[int, bytes, bytes]]:
    return [
        (result.index, result.tridiagonal.diagonal.tobytes(), result.tridiagonal.off_diagonal.tobytes())
        for result in results
    ]
