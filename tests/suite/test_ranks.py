"""Cells that several processes compute together: real processes on CPUs, to be stopped, killed and frozen."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from suite import rank_process, ranks
from suite.attempt import Outcome, attempt
from suite.errors import UserError
from suite.plan import Cell, Plan
from suite.planner import make_plan
from suite.ranks import check_gpus
from suite.record import Record
from suite.store import CellId, Store
from suite.study import read_study
from suite.training.checkpoint import Interrupted, Notice

PATIENCE_S = 120  # a bound for a busy machine, never a measurement
# A user's network: each process leaves its number, and waits as long as there is a gate; one of them may fail.
NETWORK = """
import os
import time
from pathlib import Path

from torch import nn

from suite.training import checkpoint

HERE = Path(__file__).parent
VERSION = 1
if (HERE / "always").exists():  # saved after each step, however short
    checkpoint.SHORTEST_S, checkpoint.MOST_TIME = 0.0, 1.0


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))
        self.passes = 0

    def forward(self, inputs):
        if self.training:
            (HERE / f"process-{os.getpid()}").touch()
            self.passes += 1
            while self.passes > 3 and (HERE / "gate").exists():
                time.sleep(0.01)
            if self.passes > 3 and self.is_second and (HERE / "broken").exists():
                raise ArithmeticError("the second process cannot go on")
        return self.layers(inputs)

    @property
    def is_second(self):
        from torch import distributed

        return distributed.is_initialized() and distributed.get_rank() == 1
"""
# The first save of a training waits for a word, or half a minute.
DRIVER = """
import json, sys
from pathlib import Path
from suite.attempt import attempt
from suite.plan import cell_from
from suite.training.checkpoint import Notice

attempt(cell_from(json.loads(sys.argv[1])), Path(sys.argv[2]), notice=Notice(save=True))
"""
SETTINGS = ('methods=["lomp"]', "options={}", "analyses=[]", "sparsities=[0.5]", "training.momentum=0.9")


def science(record: Record) -> dict[str, Any]:
    both = record.arrays | record.curves
    arrays = {name: (str(each.dtype), each.shape, each.tobytes()) for name, each in both.items()}
    return arrays | {"status": record.status, "metrics": repr(sorted(record.metrics.items())), "cost": record.cost}


@pytest.fixture
def plan_of(tiny_study: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Plan]]:
    """Return a function that plans the tiny study with a number of processes, of a user's network or of our own."""
    (tiny_study.parent / "gated_network.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(tiny_study.parent)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def make(processes: int, *more: str, gated: bool = False) -> Plan:
        own = ('model="gated_network:Gated"', "model_options={}") if gated else ()
        return make_plan(*read_study(str(tiny_study), [*SETTINGS, f"training.data_parallel={processes}", *own, *more]))

    yield make
    sys.modules.pop("gated_network", None)


@pytest.fixture
def new_store(tmp_path: Path) -> Callable[[str], Store]:
    def make(name: str) -> Store:
        store = Store(tmp_path / name)
        store.prepare()
        return store

    return make


def dense(plan: Plan) -> Cell:
    return plan.cells[0]


def runs(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def driven(cell: Cell, store: Store) -> subprocess.Popen[bytes]:
    """Start an attempt at a cell in a process of its own."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(each or os.getcwd() for each in sys.path)}
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, json.dumps(asdict(cell)), str(store.folder)], env=environment
    )


class Running:
    """A gated dense cell at work, in a thread of this process."""

    def __init__(self, cell: Cell, store: Store, place: Path, timeout_s: float = ranks.TIMEOUT_S) -> None:
        self.cell, self.store, self.place, self.notice = cell, store, place, Notice()
        self.outcome: list[Outcome] = []
        (place / "gate").touch()
        self.thread = threading.Thread(target=self._run, args=(timeout_s,), daemon=True)
        self.thread.start()
        wait_until(lambda: len(self.pids()) == cell.processes)

    def _run(self, timeout_s: float) -> None:
        before, ranks.TIMEOUT_S = ranks.TIMEOUT_S, timeout_s
        try:
            self.outcome.append(attempt(self.cell, self.store.folder, notice=self.notice))
        finally:
            ranks.TIMEOUT_S = before

    def pids(self) -> list[int]:
        return [int(path.name.partition("-")[2]) for path in self.place.glob("process-*")]

    def rank(self, number: int) -> int:
        """Return the process id of one rank, by the place of its output."""
        for pid in self.pids():
            shown = os.readlink(f"/proc/{pid}/fd/1")
            if ("output-1" in shown) == (number == 1):
                return pid
        raise AssertionError(number)

    def open(self) -> None:
        (self.place / "gate").unlink()

    def end(self) -> Outcome:
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive()
        assert not [pid for pid in self.pids() if runs(pid)]
        return self.outcome[0]


@pytest.mark.slow
def test_a_study_in_two_processes(plan_of: Any, new_store: Any) -> None:
    found: list[dict[str, Record]] = []
    for name, processes in (("alone", 1), ("first", 2), ("second", 2)):
        store, told = new_store(name), []
        for cell in plan_of(processes, "methods=['lomp', 'rare_gems']", "training.epochs=2").cells:
            assert cell.processes == (processes if "lomp keeping" not in cell.title else 1)
            stream = True if name == "second" else None
            outcome = attempt(cell, store.folder, progress=lambda *event: told.append(event), stream=stream)  # noqa: B023
            assert (outcome.status, outcome.message) == ("done", "")
        cells = plan_of(processes, "methods=['lomp', 'rare_gems']", "training.epochs=2").cells
        found.append({cell.title: store.load(cell.id) for cell in cells})
        assert told[-1][0] == 1.0
        assert not list(store.folder.rglob("*.checkpoint"))
        assert not list(store.folder.rglob("*.claim-*"))
    alone, first, second = found
    for title, record in first.items():
        assert science(record) == science(second[title])
        assert record.cost["gradient_steps"] == alone[title].cost["gradient_steps"]
        if "rare_gems" not in title:
            for name, array in record.arrays.items():
                np.testing.assert_allclose(array, alone[title].arrays[name], rtol=1e-4, atol=1e-5, err_msg=name)
        if "mask" in record.arrays:
            kept = alone[title].metrics["num_kept"]
            assert record.metrics["num_kept"] == kept


@pytest.mark.parametrize("stream", [None, True, False])
def test_ranks_are_told_whether_to_stream(
    stream: bool | None, plan_of: Any, new_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []

    def compute(*_: Any, stream: bool | None, **__: Any) -> None:
        told.append(stream)

    def start(rank: int, assignment: dict[str, Any]) -> Any:
        word = rank_process._computed(Mock(), json.loads(json.dumps(assignment)), Notice())
        channel = sockets.enter_context(socket.socket())
        return SimpleNamespace(rank=rank, end=word, process=Mock(), channel=channel, words=lambda: iter(()))

    monkeypatch.setattr(rank_process, "_ranks", lambda *_: None)
    monkeypatch.setattr(rank_process, "compute", compute)
    monkeypatch.setattr(ranks, "_start", start)
    with ExitStack() as sockets:
        assert attempt(dense(plan_of(2)), new_store("told").folder, stream=stream).status == "done"
    assert told == [stream, stream]


@pytest.mark.slow
def test_a_cell_that_is_stopped_goes_on_to_the_same_bits(plan_of: Any, new_store: Any) -> None:
    # of a user's network with dropout: what it draws in the second process has to go on as well
    cell, whole, parts = dense(plan_of(2, "training.epochs=1", gated=True)), new_store("whole"), new_store("parts")
    assert cell.title.endswith("dense")
    assert attempt(cell, whole.folder).status == "done"
    stopped: list[str] = []
    outcome = None
    while outcome is None:
        try:
            outcome = attempt(cell, parts.folder, notice=Notice(stop=len(stopped) < 3))
        except Interrupted as told:
            stopped.append(str(told))
            assert not list(parts.folder.rglob("*.claim-*"))
    assert outcome.status == "done"
    assert stopped == [f"training at step {step}" for step in (1, 2, 3)]
    assert science(parts.load(cell.id)) == science(whole.load(cell.id))


@pytest.mark.slow
def test_a_cell_that_is_killed_goes_on_to_the_same_bits(plan_of: Any, new_store: Any, tmp_path: Path) -> None:
    cell, whole, hurt = dense(plan_of(2, "training.epochs=2", gated=True)), new_store("whole"), new_store("hurt")
    assert attempt(cell, whole.folder).status == "done"
    (tmp_path / "always").touch()
    (tmp_path / "gate").touch()
    driver = driven(cell, hurt)
    wait_until(lambda: bool(list(hurt.folder.glob("cells/*.checkpoint/training-*-000000000003-*.h5"))))
    driver.kill()
    driver.wait()
    wait_until(lambda: not any(runs(int(path.name.partition("-")[2])) for path in tmp_path.glob("process-*")))
    (tmp_path / "gate").unlink()
    told: list[str] = []
    assert attempt(cell, hurt.folder, progress=lambda _, text: told.append(text)).status == "done"
    assert told[0] == "goes on at step 3"
    assert science(hurt.load(cell.id)) == science(whole.load(cell.id))


@pytest.mark.slow
def test_measured_limits_are_searched_together(plan_of: Any, new_store: Any) -> None:
    settings = ("methods=[]", "sparsities=[]", "analyses=['limit']", "options={limit={fine_tune_epochs=1}}")
    found = []
    for processes in (1, 2):
        store, plan = new_store(str(processes)), plan_of(processes, *settings, "training.epochs=1")
        for cell in plan.cells:
            assert attempt(cell, store.folder).status == "done"
        (limit,) = (cell for cell in plan.cells if cell.id.kind == "limit")
        assert limit.processes == processes
        found.append({name: metric.value for name, metric in store.load(limit.id).metrics.items()})
    assert found[0].keys() == found[1].keys()
    for name in ("one_shot", "fine_tuned"):  # of 72 weights; an evaluation that is close may fall to the other side
        assert abs(found[0][f"measured/{name}"] - found[1][f"measured/{name}"]) < 0.05


@pytest.mark.slow
def test_a_notice_reaches_the_training(plan_of: Any, new_store: Any, tmp_path: Path) -> None:
    cell, store = dense(plan_of(2, gated=True)), new_store("out")
    running = Running(cell, store, tmp_path)
    running.notice.save = True
    wait_until(lambda: not running.notice.save)  # it is passed on; the step behind the gate is the next to look
    running.open()
    assert running.end().status == "done"


@pytest.mark.slow
def test_a_cell_that_loses_a_process_is_tried_again_before_anybody_hears_of_it(
    plan_of: Any, new_store: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cell, store = dense(plan_of(2, gated=True)), new_store("out")
    running = Running(cell, store, tmp_path)
    others: list[Outcome] = []
    second = threading.Thread(target=lambda: others.append(attempt(cell, store.folder)), daemon=True)
    second.start()
    os.kill(running.rank(1), signal.SIGKILL)
    wait_until(lambda: len(running.pids()) == 4)
    assert not store.log_path(cell.id).exists()
    assert not others  # whoever waits for the cell goes on waiting
    running.open()
    outcome = running.end()
    second.join(PATIENCE_S)
    assert (outcome.status, outcome.attempts) == ("done", 2)
    assert [each.status for each in others] == ["cached"]
    assert f"{cell.title} is tried again: process 1 of 2 of this cell was ended by signal 9" in caplog.text


@pytest.mark.slow
def test_a_killed_process_ends_the_cell(
    plan_of: Any, new_store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("suite.attempt.MOST_TRIES", 1)
    cell, store = dense(plan_of(2, gated=True)), new_store("out")
    for number in (1, 0):
        running = Running(cell, store, tmp_path)
        os.kill(running.rank(number), signal.SIGKILL)
        outcome = running.end()  # while the gate is closed: nothing but the death of the one ends the other
        assert outcome.status == "failed"
        expected = f"process {number} of 2 of this cell was ended by signal 9 (SIGKILL); is there enough memory?"
        assert outcome.message == expected
        assert store.log_path(cell.id).read_text().splitlines()[-1].endswith(expected)
        assert not store.path(cell.id).exists()
        assert not list(store.folder.rglob("*.claim-*"))
        for path in tmp_path.glob("process-*"):
            path.unlink()
    (tmp_path / "gate").unlink()
    assert attempt(cell, store.folder).status == "done"


@pytest.mark.slow
def test_a_frozen_process_ends_the_cell_in_time(plan_of: Any, new_store: Any, tmp_path: Path) -> None:
    cell = dense(plan_of(2, gated=True))
    running = Running(cell, new_store("out"), tmp_path, timeout_s=20.0)
    os.kill(running.rank(1), signal.SIGSTOP)
    running.open()
    outcome = running.end()
    assert outcome.status == "failed"
    assert outcome.message.startswith("PeerLost: another process of this cell is silent or gone: ")
    assert "\n" not in outcome.message


@pytest.mark.slow
def test_an_error_in_one_process_is_the_cell_s(plan_of: Any, new_store: Any, tmp_path: Path) -> None:
    cell, store = dense(plan_of(2, gated=True)), new_store("out")
    (tmp_path / "broken").touch()
    outcome = attempt(cell, store.folder)
    log = store.log_path(cell.id)
    assert (outcome.status, outcome.message) == (
        "failed",
        f"ArithmeticError: the second process cannot go on (see {log})",
    )
    assert "gated_network.py" in log.read_text()
    assert log.read_text().splitlines()[-1] == "ArithmeticError: the second process cannot go on"


@pytest.mark.slow
def test_a_training_that_diverges_says_so_in_one_line(plan_of: Any, new_store: Any) -> None:
    cell, store = dense(plan_of(2, "training.learning_rate=1e30")), new_store("out")
    outcome = attempt(cell, store.folder)
    assert outcome.status == "failed"
    assert outcome.message.startswith("The loss is nan at step")
    assert "Lower training.learning_rate (it is 1e+30)" in outcome.message


@pytest.mark.slow
def test_processes_do_not_outlive_the_one_that_started_them(plan_of: Any, new_store: Any, tmp_path: Path) -> None:
    cell, store = dense(plan_of(2, gated=True)), new_store("out")
    (tmp_path / "gate").touch()
    driver = driven(cell, store)
    wait_until(lambda: len(list(tmp_path.glob("process-*"))) == 2)
    started = [int(path.name.partition("-")[2]) for path in tmp_path.glob("process-*")]
    driver.kill()
    driver.wait()
    wait_until(lambda: not any(runs(each) for each in started))


def _is_dense_row(cell: Cell) -> bool:
    """Return whether a cell only evaluates the dense network: a method without a training."""
    return cell.config.get("method") == "dense"


def test_a_plan_knows_how_many_processes_a_cell_has(tiny_study: Path) -> None:
    settings = ["training.data_parallel=3", "sparsities=[0.5]"]
    plan = make_plan(*read_study(str(tiny_study), settings))
    rows = {cell.id.key: cell.title.split()[3] for cell in plan.cells if cell.id.kind == "prune"}
    number = {rows.get(cell.id.key, cell.id.kind): cell.processes for cell in plan.cells if not _is_dense_row(cell)}
    trains = {"dense", "lomp_fine_tuned", "imp", "rare_gems", "smart_ratio", "random", "limit"}
    assert number["lomp"] == 1
    assert {cell.processes for cell in plan.cells if _is_dense_row(cell)} == {1}
    assert number == {name: 3 if name in trains else 1 for name in number}
    assert trains <= set(number)
    again = json.loads(plan.to_json())
    assert [cell["processes"] for cell in again["cells"]] == [cell.processes for cell in plan.cells]


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch, new_store: Any, plan_of: Any) -> None:
    cell = Cell(CellId("dense", "0" * 64), {}, {}, "a cell", 1, {}, 4)
    check_gpus(cell)  # CPUs compute
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(ranks, "best_device", lambda: "cuda")
    line = "a cell: training.data_parallel = 4, but GPUs here: 2. Expected: one for each process; set training.data_par"
    with pytest.raises(UserError) as caught:
        check_gpus(cell)
    assert str(caught.value).startswith(line)
    store, planned = new_store("out"), dense(plan_of(4))
    outcome = attempt(planned, store.folder)
    assert outcome.status == "failed"
    assert "training.data_parallel = 4, but GPUs here: 2" in outcome.message
