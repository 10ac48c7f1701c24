"""What a job does: run the cells of its element, and tell the study's folder how each ended.

submitit pickles the name of `run_element` and plain values; everything else is read from the study's folder.
"""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch

from launchers._cells_at_once import run_at_once
from launchers._element import WELL, Element
from launchers._job_probes import JobProbes
from launchers._submission import SubmissionFolder
from launchers._warning import heeded, least_s
from suite.environment import gpu_is_lost
from suite.plan import Cell
from suite.training.checkpoint import Interrupted

MAX_REQUEUES = 50  # of an element by itself; preemptions and lost nodes are not counted


class CellsFailed(RuntimeError):
    """Ends the job with an exit code other than 0. The study's folder says which cells, and why."""


def run_element(
    study: str, name: str, number: int, index: int, scratch: str | None, time_min: int, at_once: int = 1
) -> None:
    """Run one element of an array.

    Args:
        study: the study's folder.
        name: of the submission.
        number: of the array.
        index: of the element.
        scratch: folder on this node for temporary files.
        time_min: the job's time limit.
        at_once: cells that are computed at a time, each in a process of its own; 1: one after the other.

    Raises:
        CellsFailed: some of its cells have no record now.
        SystemExit: Slurm has warned the job, and has queued it again.
        UserError: the folder takes no more files.
    """
    folder = SubmissionFolder(Path(study), name)
    element = Element(folder, number, index)
    cells, ancestors = folder.read_element(number, index)
    failed_before = element.failed_before()
    todo = [each for each in cells if each.id.key not in failed_before or element.store.path(each.id).exists()]
    failed = len(cells) - len(todo)
    say = partial(print, flush=True)
    try:
        with (
            _temporary_files_in(scratch),
            JobProbes(folder.path / "ray", say, scratch) as probes,
            heeded(element.notice, element.num_requeues() < MAX_REQUEUES, element.has_progress, least_s(time_min)),
        ):
            if _in_children(todo, at_once, probes):
                failed += run_at_once(element, todo, at_once)
            else:
                failed += _one_after_the_other(element, todo, ancestors, probes)
    except Interrupted as left:
        element.leave(str(left))
    if failed:
        raise CellsFailed(f"{failed} of {len(cells)} cells failed; espalier status {study} says why")


def _in_children(cells: Sequence[Cell], at_once: int, probes: JobProbes) -> bool:
    """Return whether cells are computed by children of this process.

    On a GPU one after the other as well: an error of one cell may take the GPU from its process, and so from those
    after it. Workers for the probes of a cell are this process's own to ask.
    """
    if len(cells) < 2:
        return False
    return at_once > 1 or (torch.cuda.is_available() and not any(probes.spread(cell) for cell in cells))


def _one_after_the_other(
    element: Element, cells: Sequence[Cell], ancestors: dict[str, list[str]], probes: JobProbes
) -> int:
    """Run cells in this process; return how many have no record in the end."""
    failed = 0
    for number, cell in enumerate(cells, 1):
        status = element.run(cell, ancestors, probes).status
        failed += status not in WELL
        if status == "failed" and number < len(cells) and gpu_is_lost():
            raise CellsFailed(
                f"{cell.title} has failed, and taken the GPU from its job; {len(cells) - number} are left"
            )
    return failed


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
