"""A child that computes cells of a job, as launchers._cell_process, and does what files in the study's folder say.

begun-KEY   written by the child that is at a cell: its process id
hold-KEY    the cell is not begun while it is there
kill-KEY    the child that comes to the cell is killed
gate        no step of a training is made while it is there
stopped-PID written by a child that was told to stop
"""

import os
import signal
import time
from pathlib import Path
from typing import Any

from launchers import _cell_process, _element
from suite.attempt import Outcome, attempt
from suite.plan import Cell
from suite.training.checkpoint import Notice
from suite.training.stepper import Stepper

STUDY = Path(os.environ["DISTURBED_STUDY"])
hear, step = Notice.hear, Stepper.step


def while_there(name: str) -> None:
    while (STUDY / name).exists():
        time.sleep(0.01)


def disturbed(cell: Cell, folder: Path, **more: Any) -> Outcome:
    (STUDY / f"begun-{cell.id.key}").write_text(str(os.getpid()))
    if (STUDY / f"kill-{cell.id.key}").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    while_there(f"hold-{cell.id.key}")
    return attempt(cell, folder, **more)


def gated(stepper: Stepper, *arguments: Any) -> Any:
    while_there("gate")
    return step(stepper, *arguments)


def heard(notice: Notice, word: str) -> None:
    hear(notice, word)
    if word == "stop":
        (STUDY / f"stopped-{os.getpid()}").touch()


if __name__ == "__main__":
    _element.attempt, Stepper.step, Notice.hear = disturbed, gated, heard
    _cell_process.main()
