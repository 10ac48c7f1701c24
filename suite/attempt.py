"""One try at one cell, the same under every launcher: already there, or run and commit, or say why not."""

import logging
import os
import platform
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Literal

import torch
from threadpoolctl import threadpool_limits

from data.hdf5 import FileRefused
from suite.cells._context import Context
from suite.cells._trains import trains_with
from suite.claim import Assignment, Owner, claimed
from suite.curvature.pace import silent
from suite.curvature.slq import ProbeMap, inline_map
from suite.device_memory import lack_of_memory_named
from suite.environment import best_device, environment, hardware
from suite.errors import STORAGE_ERRORS, UserError
from suite.extensions import load
from suite.plan import Cell
from suite.ranks import RankFailed, RankLost, run_in_ranks
from suite.record import Record
from suite.store import CellId, Store
from suite.training.arithmetic import trained_in
from suite.training.checkpoint import Notice, Trainings
from suite.training.data_parallel import Ranks

log = logging.getLogger(__name__)
MOST_TRIES = 3  # of a cell that loses one of its processes; an error inside it would come again


@dataclass(frozen=True)
class Outcome:
    """What a launcher reports about a cell.

    Attributes:
        cell: which one.
        status: "done" (run and committed), "cached" (was there), "failed", or "upstream_failed" (never tried).
        message: one line that explains a failure.
        wall_s: seconds of this try.
        host: where it ran.
        attempts: tries so far, those included whose worker, or one of whose processes, was lost.
    """

    cell: CellId
    status: Literal["done", "cached", "failed", "upstream_failed"]
    message: str = ""
    wall_s: float = 0.0
    host: str = ""
    attempts: int = 1


def attempt(
    cell: Cell,
    folder: Path,
    *,
    probe_map: ProbeMap = inline_map,
    progress: Callable[[float, str], None] | None = None,
    assignment: Assignment | None = None,
    notice: Notice | None = None,
    stream: bool | None = None,
) -> Outcome:
    """Run a cell whose inputs are committed, and commit its record.

    What goes wrong inside the cell is an outcome, explained in the folder's logs; a cell that loses one of several
    processes is tried again first. While somebody else computes the same cell in the same folder (suite.claim), his
    record, or his failure, is waited for.

    assignment: what gave the cell to this process, for a launcher that tries again after a process was lost.
    notice: by which the launcher may have a training saved, or stopped, on the way.
    stream: whether a training leaves the inputs of its data set in the file; None: where they do not fit in memory.

    Raises:
        UserError: the folder takes no more files (full disk, quota, permission).
        Interrupted: it was told to stop, and a later attempt at the cell goes on from there.
    """
    store, start = Store(folder), time.monotonic()
    before = _log_stamp(cell, store)
    tell = progress or (lambda *_: None)
    try:
        if store.is_committed(cell.id):
            return Outcome(cell.id, "cached", host=platform.node())
        has_ended = partial(_has_ended, cell, store, before)
        with claimed(store.claim_path(cell.id), has_ended, _telling(cell, tell), assignment) as ours:
            if store.is_committed(cell.id):
                return Outcome(cell.id, "cached", host=platform.node())
            if not ours:
                return Outcome(cell.id, "failed", f"failed elsewhere: {_last_line(store.log_path(cell.id))}")
            return _computed(cell, store, probe_map, tell, notice or Notice(), start, stream)
    except OSError as error:
        if error.errno in STORAGE_ERRORS:  # no cell can be committed: stop the run instead of failing one by one
            raise UserError(
                f"{folder} cannot be written: {error.strerror}. Free space or give another folder with --out DIR; "
                "what is committed stays, run the same command again."
            ) from error
        return _failed(cell, store, error, start)
    except Exception as error:
        return _failed(cell, store, error, start)


def compute(
    cell: Cell,
    folder: Path,
    *,
    notice: Notice,
    progress: Callable[[float, str], None],
    probe_map: ProbeMap = inline_map,
    ranks: Ranks | None = None,
    stream: bool | None = None,
) -> None:
    """Compute a claimed cell in this process, and commit its record.

    ranks: of several processes that do so at the same time the first one tells, saves and commits.
    stream: see attempt.

    Raises:
        Exception: whatever goes wrong in the cell.
        Interrupted: see attempt.
    """
    store, is_first = Store(folder), ranks is None or ranks.is_first
    device, checkpoint = best_device(), store.checkpoint_path(cell.id) if is_first else None
    # The key stands for configuration, versions and inputs; the bits depend on these two beside.
    identity = f"{cell.id.kind} {cell.id.key} with torch {torch.__version__} on {hardware(device)}"
    context = Context(
        places={name: Path(place) for name, place in cell.places.items()},
        input_paths={role: (cell_id, store.path(cell_id)) for role, cell_id in cell.inputs.items()},
        probe_map=probe_map,
        device=device,
        stream=stream,
        checkpoint=checkpoint,
        trainings=Trainings(checkpoint, identity, notice),
        ranks=ranks,
        progress=progress if is_first else silent,
    )
    with _threads(cell.threads):
        start = time.monotonic()
        record = _record(cell, store, context)
        if is_first:
            record.environment |= environment(device, cell.threads)
            record.timings["wall_s"] = time.monotonic() - start + context.trainings.earlier_s
            store.commit(cell.id, record, cell.config)


def _record(cell: Cell, store: Store, context: Context) -> Record:
    module = load("suite.cells", cell.id.kind, "kind of cell")
    inputs = {role: store.load(cell_id) for role, cell_id in cell.inputs.items()}
    config = module.Config.model_validate(cell.config, strict=False)
    with lack_of_memory_named(cell.config):
        record: Record = module.run(config, inputs, context)
    record.environment |= trained_in(trains_with(cell.id.kind, config), context.device)
    return record


def _computed(
    cell: Cell,
    store: Store,
    probe_map: ProbeMap,
    progress: Callable[[float, str], None],
    notice: Notice,
    start: float,
    stream: bool | None,
) -> Outcome:
    """Compute a claimed cell. A failure is written down while the claim is held: whoever waits shall find it."""
    for tried in count(1):
        try:
            if cell.processes > 1:
                run_in_ranks(cell, store.folder, notice=notice, progress=progress, stream=stream)
            else:
                compute(cell, store.folder, notice=notice, progress=progress, probe_map=probe_map, stream=stream)
            break
        except Exception as error:
            if isinstance(error, OSError) and error.errno in STORAGE_ERRORS:
                raise
            if not isinstance(error, RankLost) or tried == MOST_TRIES:
                return _failed(cell, store, error, start, tried)
            log.warning("%s is tried again: %s", cell.title, error)
    store.log_path(cell.id).unlink(missing_ok=True)
    return Outcome(cell.id, "done", "", time.monotonic() - start, platform.node(), tried)


def _has_ended(cell: Cell, store: Store, before: int) -> bool:
    """Return whether a cell has a record, or a failure that was not there before."""
    return store.path(cell.id).exists() or _log_stamp(cell, store) not in (0, before)


def _log_stamp(cell: Cell, store: Store) -> int:
    try:
        return store.log_path(cell.id).stat().st_mtime_ns
    except OSError:
        return 0


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return f"{lines[-1]} (see {log})" if lines else f"see {log}"


def _telling(cell: Cell, progress: Callable[[float, str], None]) -> Callable[[Owner], None]:
    def tell(owner: Owner) -> None:
        progress(0.0, f"waits for {owner.text}")
        log.warning("%s is computed by %s already; waiting for its record", cell.title, owner.text)

    return tell


def _failed(cell: Cell, store: Store, error: Exception, start: float, tried: int = 1) -> Outcome:
    message = _explain(error, cell, store)
    return Outcome(cell.id, "failed", message, time.monotonic() - start, platform.node(), tried)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Compute with a fixed number of threads, in torch and in every BLAS: sums depend on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with threadpool_limits(limits=count):
            yield
    finally:
        torch.set_num_threads(before)


def _explain(error: Exception, cell: Cell, store: Store) -> str:
    """Write the log of a failed attempt and return its one line."""
    expected = isinstance(error, UserError | FileRefused | OSError)
    is_named = expected or isinstance(error, RankFailed)
    message = str(error) if is_named else f"{type(error).__name__}: {error}"
    message = message.splitlines()[0] if message else type(error).__name__
    log = f"{cell.title}\nhost {platform.node()} pid {os.getpid()}\n\n{''.join(traceback.format_exception(error))}"
    try:
        store.log_path(cell.id).write_text(log)
    except OSError:  # the disk that failed the cell may refuse its log as well
        return message
    return message if expected else f"{message} (see {store.log_path(cell.id)})"
