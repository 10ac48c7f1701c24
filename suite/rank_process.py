"""One of the processes that compute a cell together: python -m suite.rank_process, started by suite.ranks.

Its standard input is a socket. The first line that comes is its assignment, later ones are "save" and "stop"; what it
sends back are lines of JSON. When the socket closes, the process that started it is gone, and it ends.
"""

import shutil
import threading
import time
import traceback
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from data.hdf5 import FileRefused
from suite.attempt import compute
from suite.environment import best_device
from suite.errors import UserError
from suite.parent_process import Parent
from suite.plan import cell_from
from suite.process_group import PeerLost, process_group
from suite.training.checkpoint import Interrupted, Notice
from suite.training.data_parallel import Ranks

BACKENDS = ("gloo", "NCCL", "Application timeout")  # one stands in errors of torch about processes that are gone


def main() -> None:
    """Compute what this process is told to, say how that ended, and wait to be ended."""
    parent = Parent()
    assignment = parent.assignment
    notice = Notice(stop=assignment["stop"])
    parent.listen(notice.hear, lambda: shutil.rmtree(assignment["meeting"], ignore_errors=True))
    parent.say(_computed(parent, assignment, notice))
    threading.Event().wait()


def _computed(parent: Parent, assignment: dict[str, Any], notice: Notice) -> dict[str, Any]:
    """Compute, and return the last word."""

    def progress(fraction: float, text: str) -> None:
        parent.say({"event": "progress", "fraction": fraction, "text": text})

    try:
        cell = cell_from(assignment["cell"])
        ranks = _ranks(assignment, cell.processes)
        folder, stream = Path(assignment["folder"]), assignment["stream"]
        compute(cell, folder, notice=notice, progress=progress, ranks=ranks, stream=stream)
    except Interrupted as told:
        return {"event": "interrupted", "text": str(told)}
    except BaseException as error:
        return {"event": "failed", "at_s": time.monotonic(), **_described(error)}
    return {"event": "done"}


def _ranks(assignment: dict[str, Any], size: int) -> Ranks:
    """Join the others."""
    rank, device = assignment["rank"], torch.device("cpu")
    if best_device() == "cuda":
        device = torch.device("cuda", rank)
        torch.cuda.set_device(device)  # what is put on "cuda" from now on is there
    timeout = timedelta(seconds=assignment["timeout_s"])
    return Ranks(rank, size, process_group(assignment["meeting"], rank, size, timeout, device), device)


def _described(error: BaseException) -> dict[str, Any]:
    trace = "".join(traceback.format_exception(error)).rstrip()
    if isinstance(error, UserError | FileRefused):
        return {"kind": "user", "text": str(error), "trace": trace}
    if isinstance(error, OSError):
        known = (error.errno, error.strerror, error.filename)
        arguments = [each if isinstance(each, int) else str(each) for each in known if each is not None]
        return {"kind": "system", "arguments": arguments or [str(error)], "trace": trace}
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, RuntimeError) and any(name in str(error) for name in BACKENDS):
        first = (str(error).splitlines() or [""])[0][:200].removeprefix("a process of the group is lost: ")
        text = f"{PeerLost.__name__}: another process of this cell is silent or gone: {first}"
    return {"kind": "other", "text": text, "trace": trace}


if __name__ == "__main__":
    main()
