"""One small study, planned and run once."""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from launchers import inline
from launchers._events import Event
from launchers._ray_session import ray_session
from suite.attempt import Outcome
from suite.curvature.slq import ProbeResult, inline_map, slq
from suite.network import ModelSpec
from suite.networks.sources import StoredNetwork
from suite.plan import Plan
from suite.planner import make_plan
from suite.store import Store
from suite.study import read_study
from tests.launchers import rows

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


@pytest.fixture(scope="module")
def session() -> Iterator[Any]:
    """One Ray for a whole module; its workers cannot import the tests, so the classes of `rows` travel by value."""
    ray = pytest.importorskip("ray")
    ray.cloudpickle.register_pickle_by_value(rows)
    with ray_session(4, 0) as started:
        yield started


@pytest.fixture
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], list[ProbeResult]]:
    """The probes of a RowsSource when nothing happens, in this process."""
    source = rows.RowsSource(tmp_path_factory.mktemp("undisturbed"))
    return lambda number: slq(source, rows.requests(number), map=inline_map)


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
