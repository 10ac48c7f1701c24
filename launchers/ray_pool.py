"""ray: cells as tasks of a private Ray on this machine; the probes of a spectrum as actors of the same Ray."""

import math
import secrets
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from launchers._board import PAUSE_S, Reader, writer
from launchers._events import Advanced, Finished, Report, Started
from launchers._ray_session import ray_session
from launchers._schedule import Schedule
from launchers.probes import Patience, RayProbeMap
from suite.attempt import Outcome, attempt
from suite.claim import Assignment
from suite.extensions import load
from suite.plan import Cell, Plan
from suite.ranks import check_gpus
from suite.store import Store

NAME = "ray"
DESCRIPTION = "a private Ray on this machine: cells in parallel, probes of a spectrum as actors"
RAY_UNITS = 10_000  # the parts of a GPU that Ray counts
MAX_ATTEMPTS = 3  # tries per cell when its worker dies; an error inside is not tried again


def run(plan: Plan, folder: Path, *, workers: int, report: Report) -> list[Outcome]:
    """Run all cells of a plan that are not committed yet, up to `workers` at a time.

    Where there are more workers than GPUs, small cells are packed: each takes a share of one GPU, see gpu_share.

    Args:
        plan: what to run.
        folder: the study's folder.
        workers: cells at a time; each process of one has as many CPU threads as its task says.
        report: called with every event.

    Returns:
        One outcome per cell, in the plan's order. A cell whose worker was killed is tried MAX_ATTEMPTS times.

    Raises:
        UserError: a cell needs more GPUs than there are.
    """
    schedule = Schedule(plan, Store(folder))
    for outcome in list(schedule.outcomes.values()):
        report(Finished(outcome))
    if not schedule.finished:
        for cell in plan.cells:
            check_gpus(cell)  # what Ray never has, a cell would wait for
        threads = max(cell.threads * cell.processes for cell in plan.cells)
        with ray_session(workers * threads, torch.cuda.device_count()) as ray:
            _Pool(ray, schedule, folder, workers, report).drain()
    return [schedule.outcomes[cell.id.key] for cell in plan.cells]


def gpu_share(kind: str, workers: int, num_gpus: int) -> float:
    """Return how much of a GPU a cell takes: all of one, or so little that all workers find a place.

    A share is one whole GPU divided by a whole number, so that none of them spans two.

    Args:
        kind: of cell; one that plans with all the memory of a GPU gets all of it, and waits for it.
        workers: cells at a time.
        num_gpus: of this machine.
    """
    if not num_gpus:
        return 0
    shares = getattr(load("suite.cells", kind, "kind of cell"), "SHARES_GPU", False)
    cells_per_gpu = math.ceil(workers / num_gpus) if shares else 1
    return math.floor(RAY_UNITS / cells_per_gpu) / RAY_UNITS


@dataclass
class _Pool:
    """Keeps at most `workers` cells running until the schedule is finished."""

    ray: Any
    schedule: Schedule
    folder: Path
    workers: int
    report: Report
    running: dict[Any, Cell] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)
    name: str = field(default_factory=lambda: f"driver-{secrets.token_hex(8)}")

    def __post_init__(self) -> None:
        self.reader = Reader(self.ray)

    def drain(self) -> None:
        while not self.schedule.finished:
            while len(self.running) < self.workers and (cell := self.schedule.next()) is not None:
                self._start(cell)
            done, _ = self.ray.wait(list(self.running), num_returns=1, timeout=PAUSE_S)
            self._tell()
            for reference in done:
                self._end(reference, self.running.pop(reference))

    def _tell(self) -> None:
        running = {cell.id.key: cell for cell in self.running.values()}
        for key, (fraction, text) in self.reader.news().items():
            if key in running:
                self.report(Advanced(running[key], fraction, text))

    def _start(self, cell: Cell) -> None:
        self.attempts[cell.id.key] = self.attempts.get(cell.id.key, 0) + 1
        num_gpus = torch.cuda.device_count()
        sharded = load("suite.cells", cell.id.kind, "kind of cell").SHARDED
        # Other cells may hold all CPUs for hours: actors wait for their place as long as it takes.
        patience = Patience(hire_s=math.inf)
        probe_map = RayProbeMap(num_gpus or self.workers, cell.threads, min(1, num_gpus), patience=patience)
        # A sharded cell only waits for its actors, which take the CPUs; if it held one, two could block each other.
        # Where there are GPUs, a process computes one cell: it keeps their memory, and sees those of its first task.
        # Ray does so by itself if the task was declared with GPUs; here it learns of them by its options, too late.
        task = self.ray.remote(max_retries=0, max_calls=1 if num_gpus else 0)(_attempt).options(
            num_cpus=0 if sharded else cell.threads * cell.processes,
            num_gpus=0 if sharded else _num_gpus(cell, self.workers, num_gpus),
            name=cell.title,
        )
        assignment = Assignment(self.name, str(self.attempts[cell.id.key]))
        arguments = (cell, str(self.folder), probe_map if sharded else None, self.reader.board, assignment)
        self.running[task.remote(*arguments)] = cell
        self.report(Started(cell))

    def _end(self, reference: Any, cell: Cell) -> None:
        tries = self.attempts[cell.id.key]
        try:
            outcome: Outcome = self.ray.get(reference)
        except (self.ray.exceptions.WorkerCrashedError, self.ray.exceptions.OutOfMemoryError) as error:
            if tries < MAX_ATTEMPTS:
                self.schedule.again(cell)
                return
            reason = f"its worker died {tries} times ({type(error).__name__}); is there enough memory?"
            outcome = Outcome(cell.id, "failed", reason)
            with suppress(OSError):  # the log is how `espalier status` knows of it
                Store(self.folder).log_path(cell.id).write_text(f"{cell.title}\n\n{reason}\n")
        except self.ray.exceptions.RayTaskError as error:
            raise error.cause from None  # a full disk, say: the run cannot go on
        for ended in self.schedule.finish(replace(outcome, attempts=tries + outcome.attempts - 1)):
            self.report(Finished(ended))


def _num_gpus(cell: Cell, workers: int, num_gpus: int) -> float:
    """Return the GPUs of a cell that computes by itself: one for each of several processes, or a share of one."""
    if cell.processes > 1:
        return min(1, num_gpus) * cell.processes
    return gpu_share(cell.id.kind, workers, num_gpus)


def _attempt(cell: Cell, folder: str, probe_map: RayProbeMap | None, board: Any, assignment: Assignment) -> Outcome:
    """Run inside a Ray worker."""
    progress = writer(board, cell.id.key)
    if probe_map is None:
        return attempt(cell, Path(folder), progress=progress, assignment=assignment)
    with probe_map.standing() as standing:  # a cell may ask more than once
        return attempt(cell, Path(folder), probe_map=standing, progress=progress, assignment=assignment)
