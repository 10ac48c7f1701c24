"""One small study, planned and run once, and what two stores are compared by."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from data.hdf5 import open_sealed
from launchers import inline
from launchers._events import Event
from suite.attempt import Outcome
from suite.cells._sources import StoredNetwork
from suite.network import ModelSpec
from suite.plan import Plan, make_plan
from suite.store import Store
from suite.study import read_study
from tests.launchers.fake_slurm import FakeSlurm

SMALL = (
    'methods=["lomp", "imp", "random", "dense"]',
    "sparsities=[0.5, 0.8]",
    "seeds=[0]",
    'analyses=["spectrum", "limit"]',
    "training.epochs=3",
    "options.imp.rewind_step=5",
    "options.spectrum.num_lanczos_steps=8",
    "options.limit.num_lanczos_steps=8",
    "options.limit.fine_tune_epochs=1",
    "options.limit.max_evaluations=12",
)
TINY = ('methods=["lomp", "random"]', "sparsities=[0.8]", "seeds=[0]", "analyses=[]", "training.epochs=1")
VARIES = (
    "environment",
    "timings",
)  # all else is a function of the key


@dataclass
class Run:
    """What one run of a launcher left behind and told."""

    folder: Path
    outcomes: list[Outcome]
    events: list[Event]


@pytest.fixture(scope="session")
def small_plan(data_folder: Path) -> Plan:
    return make_plan(*read_study("quickstart", SMALL))


@pytest.fixture(scope="session")
def tiny_plan(data_folder: Path) -> Plan:
    """One dense cell and three that need it."""
    return make_plan(*read_study("quickstart", TINY))


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    """A Slurm of a few lines, on the PATH."""
    found = FakeSlurm(tmp_path / "cluster")
    monkeypatch.setenv("PATH", f"{found.bin}:{os.environ['PATH']}")
    return found


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """An empty study's folder."""
    Store(tmp_path / "study").prepare()
    return tmp_path / "study"


@pytest.fixture(scope="session")
def run_with() -> Callable[..., Run]:
    """Run a plan in a new folder, or go on in an old one."""

    def run(launcher: Any, plan: Plan, folder: Path, workers: int = 1) -> Run:
        for name in ("cells", "logs"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        events: list[Event] = []
        return Run(folder, launcher.run(plan, folder, workers=workers, report=events.append), events)

    return run


@pytest.fixture(scope="session")
def inline_run(small_plan: Plan, run_with: Callable[..., Run], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The reference: nobody writes into this folder."""
    return run_with(inline, small_plan, tmp_path_factory.mktemp("inline"))


@pytest.fixture
def network(inline_run: Run, small_plan: Plan) -> StoredNetwork:
    """The dense network of the small plan, as its spectrum cell sends it to workers."""
    spectrum = next(cell for cell in small_plan.cells if cell.id.kind == "spectrum")
    return StoredNetwork(
        ModelSpec.model_validate(spectrum.config["model"], strict=False),
        spectrum.inputs["dense"],
        inline_run.folder,
        Path(spectrum.places["data"]),
        spectrum.config["data"]["sha256"],
        "cpu",
    )


@pytest.fixture(scope="session")
def science() -> Callable[[Path], dict[str, Any]]:
    """Return everything in a folder's cells that must not depend on where and how they ran."""

    def read(folder: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for path in sorted((folder / "cells").glob("*.h5")):
            with open_sealed(path) as file:
                found |= _content(file, path.stem)
        return found

    return read


def _content(file: h5py.File, cell: str) -> dict[str, Any]:
    found = {cell: _facts(file)}

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if name.split("/")[0] not in VARIES:
            found[f"{cell}/{name}"] = _facts(item)

    file.visititems(visit)
    return found


def _facts(item: h5py.Group | h5py.Dataset) -> tuple[Any, ...]:
    attributes = {name: np.asarray(value).tolist() for name, value in item.attrs.items()}
    if isinstance(item, h5py.Group):
        return (attributes,)
    values = item[()]
    content = values if isinstance(values, bytes) else np.asarray(values).tobytes()  # bytes: NaN equals NaN
    return attributes, str(item.dtype), item.shape, content


@pytest.fixture(scope="session")
def stamps() -> Callable[[Path], dict[str, tuple[int, int]]]:
    """Return name -> (inode, time of change) of every committed cell: the same before and after, if left alone."""

    def read(folder: Path) -> dict[str, tuple[int, int]]:
        files = {path.name: path.stat() for path in (folder / "cells").glob("*.h5")}
        return {name: (status.st_ino, status.st_mtime_ns) for name, status in files.items()}

    return read


@pytest.fixture(scope="session")
def gone() -> Callable[[list[int]], bool]:
    """Wait until none of these processes runs any more; a generous bound, never a measurement."""

    def wait(pids: list[int]) -> bool:
        deadline_s = time.monotonic() + 60
        while any(_runs(pid) for pid in pids):
            if time.monotonic() > deadline_s:
                return False
            time.sleep(0.05)
        return True

    return wait


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
