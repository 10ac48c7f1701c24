"""Why a cell ended as it did: the end of its log, what its tries told, and where the whole of it lies."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launchers._again import in_words
from launchers._submission import SubmissionFolder, submissions
from suite.plan import Cell
from suite.progress import Standing
from suite.store import Store

TAIL_BYTES = 64 * 1024  # of a log; the rest is never read


@dataclass(frozen=True)
class CellLog:
    """What there is to read about one cell.

    Attributes:
        lines: the end of the first of its files that says something.
        paths: all files that say something, that of `lines` first: the failure's own, then its job's output.
        tries: one line for each time that a job began or ended it, the oldest first.
    """

    lines: tuple[str, ...]
    paths: tuple[Path, ...]
    tries: tuple[str, ...]


def cell_log(cell: Cell, standing: Standing, folder: Path, num_lines: int) -> CellLog:
    """Return what there is to read about a cell.

    Args:
        cell: which one.
        standing: how it stands; its job's output is read as well, if it has one.
        folder: the study's.
        num_lines: lines from the end of its log, at most.

    Cost: the last 64 KiB of its log, and the events of the elements that held it.
    """
    paths = [path for path in _files(cell, standing, folder) if path.is_file() and path.stat().st_size]
    lines = _tail(paths[0]).splitlines()[-num_lines:] if paths else []
    return CellLog(tuple(lines), tuple(paths), tuple(_tries(cell, folder)))


def _files(cell: Cell, standing: Standing, folder: Path) -> Iterator[Path]:
    yield Store(folder).log_path(cell.id)
    for submission in reversed(submissions(folder)):
        jobs = SubmissionFolder(folder, submission.name).jobs
        if any(standing.job in array.ids for array in submission.arrays):
            yield from (jobs / f"{standing.job}_0_log.{end}" for end in ("err", "out"))
            return


def _tries(cell: Cell, folder: Path) -> Iterator[str]:
    for submission in submissions(folder):
        for key, array, index in submission.holders():
            if key == cell.id.key:
                told = SubmissionFolder(folder, submission.name).told(array.number, index)
                yield from (_line(event, array.ids[index]) for event in told if event.get("cell") == key)


def _line(event: Mapping[str, Any], job: str) -> str:
    """Return one event in words: when, what, and where."""
    node = event.get("slurmd_nodename") or event.get("host", "")
    requeued = f", requeued {event['slurm_restart_count']} times" if "slurm_restart_count" in event else ""
    where = f"{f' on {node}' if node else ''} in job {job}{requeued}"
    if event.get("event") == "queued_again":
        return f"{event.get('time_utc', '')} {in_words(event)}"
    if event.get("event") in ("left", "paused", "stayed"):
        return f"{event.get('time_utc', '')} was warned{where}: {event.get('message', '')}"
    if event.get("event") == "lost":
        return f"{event.get('time_utc', '')} was lost{where}: {event.get('message', '')}"
    if event.get("event") != "ended":
        return f"{event.get('time_utc', '')} began{where}"
    why = f": {event['message']}" if event.get("message") else ""
    return f"{event.get('time_utc', '')} ended {event.get('status')} after {event.get('wall_s', 0):.1f} s{where}{why}"


def _tail(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
        return file.read().decode("utf-8", errors="replace")
