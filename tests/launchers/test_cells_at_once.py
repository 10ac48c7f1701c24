"""Several cells of one job at a time, in real children that are held, killed and warned, of a job in this process."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from launchers import _cells_at_once, inline, slurm
from launchers._logs import cell_log
from launchers._profile import Profile
from launchers._slurm_cluster import SlurmCluster
from launchers._standing import overview
from launchers._submission import SubmissionFolder, submissions
from suite.plan import Cell, Plan
from suite.planner import make_plan
from suite.store import Store
from suite.study import read_study
from tests.launchers.fake_slurm import FakeSlurm

SETTINGS = ('methods=["random"]', "sparsities=[0.8]", "seeds=[0, 1, 2, 3]", "analyses=[]", "training.epochs=1")
PROFILE = Profile(time_min=20, cells_per_job=10, cells_at_once=2)
PATIENCE_S = 120  # a bound for a busy machine, never a measurement
Science = Callable[[Path], dict[str, Any]]


@pytest.fixture(scope="module")
def plan(data_folder: Path) -> Plan:
    """Four dense cells, which fit into one job, and four that need them."""
    return make_plan(*read_study("quickstart", SETTINGS))


@pytest.fixture
def pack(plan: Plan, fake: FakeSlurm, study: Path, monkeypatch: pytest.MonkeyPatch) -> list[Cell]:
    """The cells of the first job in the queue, in its order; its children do what the study's folder says."""
    monkeypatch.setattr(_cells_at_once, "MODULE", "tests.launchers.disturbed_child")
    monkeypatch.setattr(_cells_at_once, "GRACE_S", 0.0)
    monkeypatch.setenv("DISTURBED_STUDY", str(study))
    slurm.submit(plan, study, PROFILE, SlurmCluster())
    cells = {cell.id.key: cell for cell in plan.cells}
    (element,) = submissions(study)[0].arrays[0].elements
    return [cells[key] for key in element]


def told(study: Path) -> list[dict[str, Any]]:
    return SubmissionFolder(study, submissions(study)[0].name).told(0, 0)


def told_of(study: Path, cell: Cell) -> list[dict[str, Any]]:
    return [event for event in told(study) if event["cell"] == cell.id.key]


def first_job(study: Path) -> str:
    return submissions(study)[0].arrays[0].ids[0]


def until(reached: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not reached() and time.monotonic() < deadline_s:
        time.sleep(0.02)


@contextmanager
def meanwhile(work: Callable[[], None]) -> Iterator[None]:
    """Do something in a thread while the job runs, and let an error of it be the test's."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield
    thread.join(PATIENCE_S)
    if errors:
        raise errors[0]


def test_a_free_process_takes_the_next_cell_and_the_records_are_those_of_one_after_the_other(
    plan: Plan,
    fake: FakeSlurm,
    study: Path,
    pack: list[Cell],
    run_with: Callable[..., Any],
    science: Science,
    tmp_path: Path,
) -> None:
    first, *others = pack
    hold = study / f"hold-{first.id.key}"
    hold.touch()

    def let_go() -> None:
        until(lambda: sum(event["event"] == "ended" for event in told(study)) == len(others))
        hold.unlink()

    with meanwhile(let_go):
        assert fake.run(first_job(study)) == ""
    workers = [(study / f"begun-{cell.id.key}").read_text() for cell in pack]
    assert len(set(workers)) == 2
    assert workers.count(workers[0]) == 1
    assert str(os.getpid()) not in workers
    ended = [event["cell"] for event in told(study) if event["event"] == "ended"]
    assert ended == [cell.id.key for cell in (*others, first)]
    assert {event["status"] for event in told(study) if event["event"] == "ended"} == {"done"}
    fake.run_all()
    assert {cell.id.kind for cell in plan.cells} == {"dense", "prune"}
    assert science(study) == science(run_with(inline, plan, tmp_path / "inline").folder)
    assert not list((study / "cells").glob("*.claim-*"))


@pytest.mark.slow
def test_a_process_that_is_killed_fails_its_own_cell_and_another_one_takes_its_place(
    plan: Plan, fake: FakeSlurm, study: Path, pack: list[Cell]
) -> None:
    bad = pack[1]
    (study / f"kill-{bad.id.key}").touch()
    assert fake.run(first_job(study)).startswith("CellsFailed: 1 of 4 cells failed; ")
    last = {event["cell"]: event for event in told(study)}
    assert last.pop(bad.id.key)["status"] == "failed"
    message = told_of(study, bad)[-1]["message"]
    assert message == (
        "the process of this cell was ended by signal 9 (SIGKILL), with up to 2 cells at once in its job; is there "
        "enough memory? Raise memory_gib of the profile or lower cells_at_once, then run espalier retry "
        f"{study}"
    )
    assert {event["status"] for event in last.values()} == {"done"}
    standing = {each.name: each for each in overview(plan, study, SlurmCluster()).cells}
    assert standing[bad.id.name].state == "failed"
    assert message in standing[bad.id.name].message
    (study / f"kill-{bad.id.key}").unlink()
    slurm.submit(plan, study, PROFILE, SlurmCluster())
    assert fake.run(submissions(study)[1].arrays[0].ids[0]) == ""
    assert all(Store(study).is_committed(cell.id) for cell in pack)


@pytest.mark.slow
def test_all_heed_a_warning_and_the_job_leaves_once(
    plan: Plan,
    fake: FakeSlurm,
    study: Path,
    pack: list[Cell],
    run_with: Callable[..., Any],
    science: Science,
    tmp_path: Path,
) -> None:
    job, running = first_job(study), []
    (study / "gate").touch()

    def warn() -> None:
        until(lambda: len(list(study.glob("begun-*"))) == 2)
        running.extend(each.state for each in overview(plan, study, SlurmCluster()).cells)
        os.kill(os.getpid(), signal.SIGUSR2)
        until(lambda: len(list(study.glob("stopped-*"))) == 2)
        (study / "gate").unlink()

    with meanwhile(warn):
        assert fake.run(job) == "SystemExit: saved 2 cells; Slurm has queued the job again"
    assert running.count("running") == 2
    assert fake.jobs[job]["restarts"] == 1
    events = told(study)
    assert [event["event"] for event in events] == ["started", "started", "paused", "left"]
    assert {event["cell"] for event in events[:2]} == {event["cell"] for event in events[2:]}
    assert {event["message"] for event in events[2:]} == {"saved training at step 1"}
    assert not list((study / "cells").glob("*.claim-*"))
    standings = {each.name: each for each in overview(plan, study, SlurmCluster()).cells}
    for cell in pack[:2]:
        assert "was warned" in cell_log(cell, standings[cell.id.name], study, 9).tries[1]
    fake.run_all()
    assert [event["event"] for event in told(study)].count("left") == 1
    assert science(study) == science(run_with(inline, plan, tmp_path / "inline").folder)
    assert not list((study / "cells").glob("*.checkpoint"))


@pytest.mark.slow
def test_processes_do_not_outlive_their_job(study: Path, pack: list[Cell], gone: Callable[[list[int]], bool]) -> None:
    (study / "gate").touch()
    script = (
        "from launchers import _cells_at_once\n_cells_at_once.MODULE = 'tests.launchers.disturbed_child'\n"
        "from launchers._slurm_job import run_element\n"
        f"run_element({str(study)!r}, {submissions(study)[0].name!r}, 0, 0, None, 20, 2)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(each or os.getcwd() for each in sys.path)}
    job = subprocess.Popen([sys.executable, "-c", script], env=environment)
    until(lambda: len([path for path in study.glob("begun-*") if path.read_text()]) == 2)
    pids = [int(path.read_text()) for path in study.glob("begun-*")]
    assert len(set(pids)) == 2
    job.kill()
    job.wait()
    assert gone(pids)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("0,1", ["0", "1", "0", "1"]),
        ("3", [None] * 4),
        ("", [None] * 4),
        ("NoDevFiles", [None] * 4),
        ("GPU-a, MIG-b,GPU-c", ["GPU-a", "MIG-b", "GPU-c", "GPU-a"]),
        (None, ["0", "1", "0", "1"]),
    ],
)
def test_cells_share_the_gpus_that_slurm_gave(
    given: str | None, found: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if given is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert [_cells_at_once._gpu_of(place).get("CUDA_VISIBLE_DEVICES") for place in range(4)] == found
