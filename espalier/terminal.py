"""What all commands share: exit codes, lines for people, progress, and results as JSON."""

import json
import logging
import os
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from espalier.limits_table import COLUMNS, limits_in, table_lines

DONE, SOME_FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
_FIRST_LINE_S, _LINE_EVERY_S = 2.0, 15.0  # of progress in a log
_GROWTH_BYTES = 256 * 2**20  # of a plan: below, it is told once
_REPEAT_S = 0.5  # of a lost interrupt


def command() -> str:
    """Return the command as it was typed."""
    return shlex.join(["espalier", *sys.argv[1:]])


def complain(message: str) -> None:
    """Print one line to standard error."""
    # A name inside a file may hold escape codes.
    plain = "".join(char if char.isprintable() else " " for char in message)
    print(f"espalier: {' '.join(plain.split())}", file=sys.stderr)


def one_of(option: str, value: str, known: Any) -> str:
    """Return the value of an option that must be among the known ones.

    Raises:
        UserError: it is not.
    """
    from suite.errors import UserError, nearest

    if value not in known:
        raise UserError(f"{option} {value!r} is unknown.{nearest(value, known)} Expected: {' or '.join(known)}.")
    return value


def num_processors() -> int:
    """Return the processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def num_workers() -> int:
    """Return how many cells run at a time where nobody says it: one per GPU, or without any one per processor."""
    import torch

    return torch.cuda.device_count() or num_processors()


@contextmanager
def resumable(left: str = "") -> Iterator[None]:
    """Turn an interrupt into one line that says how to go on.

    Args:
        left: what an interrupt leaves, and how to go on; by default committed cells, and the same command.
    """
    try:
        yield
    except KeyboardInterrupt:
        interrupt_has_arrived()
        complain(f"interrupted; {left or f'what is committed stays. Go on with the same command: {command()}'}")
        raise SystemExit(INTERRUPTED) from None  # not typer's own exit, which says no more than the interrupt itself


@contextmanager
def progress_bar() -> Iterator[Callable[[float, str], None]]:
    """Yield what takes a fraction and a text: a bar on a terminal, elsewhere a line now and then.

    What the engine says is told as it comes.
    """
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
    from rich.table import Column

    console = Console(stderr=True)
    if not console.is_terminal:
        with told_by_the_engine():
            yield Lines().take
        return
    text = TextColumn("{task.description}", markup=False, table_column=Column(ratio=1, overflow="fold"))
    columns = (BarColumn(bar_width=16), TaskProgressColumn(), text)
    with Progress(*columns, console=console, transient=True, expand=True) as bar, told_by_the_engine():
        task = bar.add_task("reading", total=1.0)
        yield lambda fraction, text: bar.update(task, completed=fraction, description=text)


class Lines:
    """Prints how a measurement stands, not oftener than a log can bear; clock: seconds from any fixed moment."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next_s = clock() + _FIRST_LINE_S

    def take(self, fraction: float, text: str) -> None:
        """Print one line, if the last is long enough ago."""
        if self._clock() >= self._next_s:
            self._next_s = self._clock() + _LINE_EVERY_S
            complain(f"{fraction:.0%}: {text}")


@contextmanager
def news_line() -> Iterator[Callable[[str], None]]:
    """Yield what takes one line of news: shown in place on a terminal, until an empty one comes; else all of them."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda line: print(line, file=sys.stderr, flush=True) if line else None
        return
    shown = console.status("")

    def tell(line: str) -> None:
        shown.update(line)
        shown.start() if line else shown.stop()

    try:
        yield tell
    finally:
        shown.stop()


@contextmanager
def told_by_the_engine() -> Iterator[None]:
    """Show what the suite has to say, one line each and none twice: warnings, and plans of memory as they grow."""
    handler = _Telling()
    loggers = {name: logging.getLogger(name) for name in ("suite", "launchers")}
    levels = {name: logger.level for name, logger in loggers.items()}
    loggers["suite"].setLevel(logging.INFO)
    for logger in loggers.values():
        logger.addHandler(handler)
    try:
        yield
    finally:
        for name, logger in loggers.items():
            logger.removeHandler(handler)
            logger.setLevel(levels[name])


class _Telling(logging.Handler):
    """Complains what it is given, once; of plans, the first, and those that are larger by a tenth and by 256 MiB."""

    def __init__(self) -> None:
        super().__init__()
        self._told: set[str] = set()
        self._planned_bytes = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Show a warning, or what says where memory goes."""
        text = record.getMessage()
        if text in self._told or not (record.levelno >= logging.WARNING or self._is_news(record)):
            return
        self._told.add(text)
        complain(f"warning: {text}" if record.levelno >= logging.WARNING else text)

    def _is_news(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith("suite.curvature"):
            return False
        peak_bytes = getattr(record, "peak_bytes", None)
        if peak_bytes is None:  # where memory goes, but no plan
            return True
        if self._planned_bytes and peak_bytes < max(1.1 * self._planned_bytes, self._planned_bytes + _GROWTH_BYTES):
            return False
        self._planned_bytes = peak_bytes
        return True


def show(values: dict[str, Any]) -> None:
    """Print a result: its limits as a table, then one line each for what else is known; lists are left to the JSON."""
    lines = table_lines(values)
    if lines:
        print("\n".join(lines), end="\n\n")
    limits = limits_in(values)
    for name, value in values.items():
        if isinstance(value, dict):
            hidden = (*COLUMNS, "probe_standard_error", "budget") if name in limits else ()
            parts = _parts({part: each for part, each in value.items() if part not in hidden})
            if parts:
                print(f"{name}: {parts}")
        elif value is not None and not isinstance(value, list):
            print(f"{name}: {_number(value)}")


def _parts(values: dict[str, Any]) -> str:
    known = {part: each for part, each in values.items() if each is not None and not isinstance(each, list)}
    return ", ".join(
        f"{part} ({_parts(each)})" if isinstance(each, dict) else f"{part} {_number(each)}"
        for part, each in known.items()
    )


def _number(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def check_writable(path: Path | None) -> None:
    """Refuse a file for results that cannot be written, before anything is computed.

    Raises:
        UserError: it is a folder, or no file can be made beside it.
    """
    from suite.errors import UserError

    if path is not None and (path.is_dir() or unwritable(path.absolute().parent)):
        raise UserError(f"{path} cannot be written. Give --json a file in a folder that exists and is yours.")


def unwritable(folder: Path) -> str:
    """Return why no file can be made in a folder, by making one for a moment; nothing where one can."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return error.strerror or type(error).__name__


def write_json(path: Path | None, values: dict[str, Any]) -> None:
    """Write a result with the command that made it, whole or not at all."""
    from data.hdf5 import commit_bytes

    if path:
        text = json.dumps(values | {"command": command()}, indent=1, allow_nan=False)
        commit_bytes(path.absolute(), f"{text}\n".encode())


def interrupt_on_signals() -> None:
    """Treat SIGTERM and SIGHUP (a lost terminal) as Ctrl-C, so that all that was started is ended; none is lost.

    A SIGHUP that is ignored, as nohup has it, stays so.

    Python drops an exception that is raised while a callback of a weak reference runs, and h5py has many of those. So
    the signal is repeated until its exception is on its way.
    """

    def interrupt(number: int, frame: object) -> None:
        del frame
        if number == signal.SIGALRM and _is_on_its_way(sys.exc_info()[1]):
            return
        signal.setitimer(signal.ITIMER_REAL, _REPEAT_S)
        raise KeyboardInterrupt

    def tell_of_others(unraisable: Any) -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            sys.__unraisablehook__(unraisable)

    sys.unraisablehook = tell_of_others
    hears = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM, *([signal.SIGHUP] if hears else [])):
        signal.signal(each, interrupt)


def interrupt_has_arrived() -> None:
    """Stop repeating an interrupt: somebody has taken it."""
    signal.setitimer(signal.ITIMER_REAL, 0)


def _is_on_its_way(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None
