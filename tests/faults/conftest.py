"""Real runs in processes of their own, to be killed, interrupted and starved."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from data.hdf5 import open_sealed
from launchers import inline
from suite.plan import Plan
from suite.planner import make_plan
from suite.record import read_record
from suite.store import Store
from suite.study import read_study

SETTINGS = (
    "training.epochs=150",  # about half a second per cell: long enough to be caught at work
    'methods=["lomp", "imp", "random"]',
    "options={imp={fraction_per_round=0.4, rewind_step=3}, spectrum={num_lanczos_steps=10}}",
    'analyses=["spectrum"]',
)
PATIENCE_S = 180  # a bound for a busy machine, never a measurement


class Command:
    """One command of espalier in a process group of its own, with fresh HOME and TMPDIR.

    Args:
        place: a folder with a short name; HOME and TMPDIR are inside.
        arguments: of the command.
        cwd: where it runs; None: in the place.
        env: variables of its environment beside those here.
        prefix: what runs the command.
    """

    def __init__(
        self,
        place: Path,
        arguments: Sequence[object],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        self.temporary, self.home = place / "t", place / "h"
        for folder in (self.temporary, self.home):
            folder.mkdir(exist_ok=True)
        environment = os.environ | {"HOME": str(self.home), "TMPDIR": str(self.temporary), "OMP_NUM_THREADS": "1"}
        environment |= {"PYTHONFAULTHANDLER": "1"}
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "espalier", *map(str, arguments)],
            env=environment | dict(env or {}),
            cwd=cwd or place,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.seen: set[int] = set()

    def wait_until(self, is_so: Callable[[], bool]) -> None:
        """Return as soon as something is so, and the command is still at work."""
        deadline_s = time.monotonic() + PATIENCE_S
        while not is_so():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline_s
            time.sleep(0.01)

    def end(self) -> tuple[int, str, str]:
        """Wait for the end; return exit code, output and error output."""
        try:
            out, err = self.process.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)  # PYTHONFAULTHANDLER: where it hangs is part of the failure
            pytest.fail("\n".join(self.process.communicate()))
        return self.process.returncode, out, err

    def descendants(self) -> dict[int, str]:
        """Return pid -> command line of all processes below the command, and remember them for the clean-up."""
        parents: dict[int, int] = {}
        names: dict[int, str] = {}
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                pid = int(folder.name)
                parents[pid] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                names[pid] = (folder / "cmdline").read_text().replace("\0", " ")
        found: dict[int, str] = {}
        rest = [self.process.pid]
        while rest:
            below = [pid for pid, parent in parents.items() if parent == rest[0] and pid in names]
            found |= {pid: names[pid] for pid in below}
            rest = rest[1:] + below
        self.seen |= set(found)
        return found

    def kill(self) -> dict[int, str]:
        """SIGKILL for the whole process group and for what Ray started outside of it; return the latter as below."""
        below = self.descendants()
        os.killpg(self.process.pid, signal.SIGKILL)
        for pid in below:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        return below

    def abandon(self) -> None:
        """End what this command started and what is still there; a process that is not its own group's is not."""
        for pid in (self.process.pid, *self.seen):
            with contextlib.suppress(OSError):
                if os.getpgid(pid) == self.process.pid:
                    os.kill(pid, signal.SIGKILL)
        self.process.communicate()


class Driver(Command):
    """One `espalier run` of a study, with the settings above."""

    def __init__(self, study: Path, place: Path, *options: str, out: Path | None = None, **more: Any) -> None:
        self.folder = out or place / "out"
        settings = [word for setting in SETTINGS for word in ("--set", setting)]
        super().__init__(place, ["run", study, "--out", self.folder, *settings, *options], **more)

    def wait_for_cells(self, number: int) -> None:
        """Return as soon as so many cells are committed, and the run is still at work."""
        # a temporary name is no commit yet
        self.wait_until(lambda: len(list(self.folder.glob("cells/[!.]*.h5"))) >= number)


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder with a short name, for Ray's sockets have to fit below it."""
    folder = Path(tempfile.mkdtemp(prefix="e-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def slow_study(tmp_path_factory: pytest.TempPathFactory, write_tiny_study: Callable[[Path], Path]) -> Path:
    """The file of a study whose cells take a while."""
    return write_tiny_study(tmp_path_factory.mktemp("studies"))


@pytest.fixture(scope="session")
def slow_plan(slow_study: Path) -> Plan:
    return make_plan(*read_study(str(slow_study), SETTINGS))


@pytest.fixture
def started() -> Iterator[list[Command]]:
    """What a test starts goes in here; whatever is left of it at the end of the test is ended."""
    commands: list[Command] = []
    yield commands
    for command in commands:
        command.abandon()


@pytest.fixture
def start(place: Path, started: list[Command]) -> Callable[..., Command]:
    """Start any command of espalier in a folder."""

    def begin(cwd: Path, *arguments: object) -> Command:
        started.append(Command(place, arguments, cwd=cwd))
        return started[-1]

    return begin


@pytest.fixture
def drive(slow_study: Path, place: Path, started: list[Command]) -> Callable[..., Driver]:
    """Start runs of the slow study."""

    def begin(*options: str, **more: Any) -> Driver:
        driver = Driver(slow_study, place, *options, **more)
        started.append(driver)
        return driver

    return begin


@pytest.fixture(scope="session")
def results() -> Callable[[Path], dict[str, Any]]:
    """Return every committed cell's result, bit for bit, without timings and environment."""

    def read(folder: Path) -> dict[str, Any]:
        found = {}
        for path in (folder / "cells").glob("[!.]*.h5"):
            with open_sealed(path) as file:
                record = read_record(file)
            arrays = {name: array.tobytes() for name, array in (record.curves | record.arrays).items()}
            found[path.name] = (record.status, repr(sorted(record.metrics.items())), record.cost, arrays)
        return found

    return read


@pytest.fixture(scope="session")
def undisturbed(slow_plan: Plan, results: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The results of the same study when nothing goes wrong."""
    folder = tmp_path_factory.mktemp("undisturbed")
    Store(folder).prepare()
    inline.run(slow_plan, folder, workers=1, report=lambda _: None)
    return results(folder)


@pytest.fixture(scope="session")
def gone() -> Callable[[dict[int, str]], bool]:
    """Wait until processes have ended, but for two helpers that Ray lets wait a minute for a cluster that is gone."""

    def wait(processes: dict[int, str]) -> bool:
        deadline_s = time.monotonic() + PATIENCE_S
        while any(_runs(pid) for pid, name in processes.items() if "Agent" not in name):
            if time.monotonic() > deadline_s:
                return False
            time.sleep(0.05)
        return True

    return wait


def _runs(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
