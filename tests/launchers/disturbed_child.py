"""A child that computes cells of a job, as launchers._cell_process, and does what files in the study's folder say.

begun-KEY   written by the child that is at a cell: its process id
hold-KEY    the cell is not begun while it is there
kill-KEY    the child that comes to the cell is killed; each takes one of the characters in the file, if it holds any
assert-KEY  the cell fails, and as after a failed assertion in a kernel no call of CUDA succeeds in that child any more
refuse-KEY  the study's folder takes no more files, as that cell finds when there is no refuse-later
die-KEY     the child that is given the cell is killed before it comes to it; as with kill-KEY
gate        no step of a training is made while it is there
stopped-PID written by a child that was told to stop
"""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from launchers import _cell_process, _element
from suite.attempt import Outcome, attempt
from suite.errors import UserError
from suite.parent_process import Parent
from suite.plan import Cell
from suite.training.checkpoint import Notice
from suite.training.stepper import Stepper

STUDY = Path(os.environ["DISTURBED_STUDY"])
hear, step, listen = Notice.hear, Stepper.step, Parent.listen


def while_there(name: str) -> None:
    while (STUDY / name).exists():
        time.sleep(0.01)


def takes_one(name: str) -> bool:
    """Return whether a file is there; take a character of it, and the file with the last one."""
    path = STUDY / name
    if not path.exists():
        return False
    left = path.read_text()
    if len(left) == 1:
        path.unlink()
    elif left:
        path.write_text(left[1:])
    return True


def asserted() -> None:
    raise RuntimeError("CUDA error: device-side assert triggered")


def disturbed(cell: Cell, folder: Path, **more: Any) -> Outcome:
    (STUDY / f"begun-{cell.id.key}").write_text(str(os.getpid()))
    if takes_one(f"kill-{cell.id.key}"):
        os.kill(os.getpid(), signal.SIGKILL)
    if (STUDY / f"refuse-{cell.id.key}").exists():
        while_there("refuse-later")
        raise UserError("the folder cannot be written")
    if (STUDY / f"assert-{cell.id.key}").exists():
        torch.cuda.is_initialized, torch.cuda.synchronize = lambda: True, asserted
    if torch.cuda.synchronize is asserted:
        return Outcome(cell.id, "failed", "CUDA error: device-side assert triggered")
    while_there(f"hold-{cell.id.key}")
    return attempt(cell, folder, **more)


def listened(parent: Parent, heard: Callable[[str], None]) -> None:
    def take(line: str) -> None:
        if takes_one(f"die-{line}"):
            os.kill(os.getpid(), signal.SIGKILL)
        heard(line)

    listen(parent, take)


def gated(stepper: Stepper, *arguments: Any) -> Any:
    while_there("gate")
    return step(stepper, *arguments)


def heard(notice: Notice, word: str) -> None:
    hear(notice, word)
    if word == "stop":
        (STUDY / f"stopped-{os.getpid()}").touch()


if __name__ == "__main__":
    _element.attempt, Stepper.step, Notice.hear, Parent.listen = disturbed, gated, heard, listened
    _cell_process.main()
