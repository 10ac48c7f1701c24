"""What a job does: run the cells of its element one after the other, and tell the study's folder how each ended.

submitit pickles the name of `run_element` and four plain values; everything else is read from the study's folder.
"""

import os
import platform
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from launchers._job_probes import JobProbes
from launchers._submission import SubmissionFolder
from launchers.ray_cluster import RayFailed
from suite.attempt import Outcome, attempt
from suite.errors import UserError
from suite.plan import Cell
from suite.store import Store

LOOKS, LOOK_S = 3, 2.0  # an input just committed on another node may take a moment to be seen


class CellsFailed(RuntimeError):
    """Ends the job with an exit code other than 0. The study's folder says which cells, and why."""


def run_element(study: str, name: str, number: int, index: int, scratch: str | None = None) -> None:
    """Run one element of an array.

    Args:
        study: the study's folder.
        name: of the submission.
        number: of the array.
        index: of the element.
        scratch: folder on this node for temporary files.

    Raises:
        CellsFailed: some of its cells have no record now.
        UserError: the folder takes no more files.
    """
    folder = SubmissionFolder(Path(study), name)
    cells, ancestors = folder.read_element(number, index)
    failed = 0
    say = partial(print, flush=True)
    with _temporary_files_in(scratch), JobProbes(folder.path / "ray", say, scratch) as probes:
        for cell in cells:
            folder.tell(number, index, {"event": "started", "cell": cell.id.key, **_place()})
            try:
                if lost := _lost_input(cell, Store(Path(study)), ancestors):
                    outcome = Outcome(cell.id, "upstream_failed", f"needs {lost}", host=platform.node(), attempts=0)
                elif probes.spread(cell) and not Store(Path(study)).path(cell.id).exists():
                    outcome = _run_spread(cell, folder, number, index, probes)
                else:
                    outcome = attempt(cell, Path(study))
            except UserError as error:
                with suppress(OSError):
                    _tell_end(folder, number, index, Outcome(cell.id, "failed", str(error), host=platform.node()))
                raise
            _tell_end(folder, number, index, outcome)
            failed += outcome.status not in ("done", "cached")
    if failed:
        raise CellsFailed(f"{failed} of {len(cells)} cells failed; espalier status {study} says why")


def _run_spread(cell: Cell, folder: SubmissionFolder, number: int, index: int, probes: JobProbes) -> Outcome:
    """Run a cell whose probes go to workers on all nodes of this job, and tell where they were."""
    try:
        with probes.map_for(cell) as probe_map:
            outcome = attempt(cell, folder.study, probe_map=probe_map)
            folder.tell(number, index, {"event": "workers", "of": cell.id.key, "hosts": probe_map.hosts})
            return outcome
    except RayFailed as error:
        with suppress(OSError):  # the log is how `espalier status` knows of it
            Store(folder.study).log_path(cell.id).write_text(f"{cell.title}\n\n{error}\n")
        return Outcome(cell.id, "failed", str(error), host=platform.node())


def _lost_input(cell: Cell, store: Store, ancestors: dict[str, list[str]]) -> str:
    """Return the name of the cell without whose record this one cannot run, or nothing."""
    for look in range(LOOKS):
        missing = [each for each in cell.inputs.values() if not store.path(each).exists()]
        if not missing:
            return ""
        if store.is_committed(cell.id):  # its own record is there: its inputs are no longer needed
            return ""
        if any(store.log_path(each).exists() for each in missing):
            break
        if look < LOOKS - 1:
            time.sleep(LOOK_S)
            os.utime(store.folder / "cells")  # makes NFS forget what it thought was in the folder
    name = missing[0].name
    while lost := [each for each in ancestors.get(name, []) if not (store.folder / "cells" / f"{each}.h5").exists()]:
        name = lost[0]
    return name


def _tell_end(folder: SubmissionFolder, number: int, index: int, outcome: Outcome) -> None:
    values = {key: value for key, value in asdict(outcome).items() if key != "cell"}
    folder.tell(number, index, {"event": "ended", "cell": outcome.cell.key, **values, **_place()})


def _place() -> dict[str, str]:
    """Return when and where: the job, how often it was requeued, the node."""
    names = ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT", "SLURMD_NODENAME")
    return {"time_utc": datetime.now(UTC).isoformat(timespec="seconds")} | {
        name.lower(): os.environ[name] for name in names if name in os.environ
    }


@contextmanager
def _temporary_files_in(scratch: str | None) -> Iterator[None]:
    """Let temporary files lie in a private folder on the node, removed at the end."""
    if scratch is None:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="espalier-", dir=scratch) as folder:
        before = os.environ.get("TMPDIR")
        os.environ["TMPDIR"] = tempfile.tempdir = folder
        try:
            yield
        finally:
            tempfile.tempdir = None
            os.environ.pop("TMPDIR")
            if before is not None:
                os.environ["TMPDIR"] = before
