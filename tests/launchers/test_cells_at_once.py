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

from launchers import _cell_process, _cells_at_once, inline, slurm
from launchers._element import Element
from launchers._logs import cell_log
from launchers._profile import Profile
from launchers._slurm_cluster import SlurmCluster
from launchers._slurm_job import CellsFailed, run_element
from launchers._standing import overview
from launchers._submission import SubmissionFolder, submissions
from suite.plan import Cell, Plan
from suite.planner import make_plan
from suite.store import Store
from suite.study import read_study
from suite.training.checkpoint import Notice
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
    monkeypatch.syspath_prepend(Path(__file__).parents[2])  # pytest's own imports reach no child
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
def test_a_cell_whose_process_is_killed_is_tried_once_more_alone(
    plan: Plan, fake: FakeSlurm, study: Path, pack: list[Cell]
) -> None:
    bad, others = pack[0], pack[1:]
    (study / f"kill-{bad.id.key}").write_text("1")
    assert fake.run(first_job(study)) == ""
    assert [event["event"] for event in told_of(study, bad)] == ["started", "lost", "started", "ended"]
    # The others had ended when it was tried again, and no other process was left.
    assert [event["cell"] for event in told(study)[-2:]] == [bad.id.key] * 2
    assert (study / f"begun-{bad.id.key}").read_text() not in {
        (study / f"begun-{cell.id.key}").read_text() for cell in others
    }
    ended = [event for event in told(study) if event["event"] == "ended"]
    assert [(event["status"], event["message"]) for event in ended] == [("done", "")] * len(pack)
    standing = next(each for each in overview(plan, study, SlurmCluster()).cells if each.name == bad.id.name)
    tries = cell_log(bad, standing, study, 9).tries
    assert "was lost" in tries[1]
    assert tries[1].endswith("its process was ended by signal 9 (SIGKILL); it is tried once more, alone")


@pytest.mark.slow
def test_a_cell_whose_process_is_killed_alone_as_well_fails(
    plan: Plan, fake: FakeSlurm, study: Path, pack: list[Cell]
) -> None:
    bad = pack[1]
    (study / f"kill-{bad.id.key}").touch()
    assert fake.run(first_job(study)).startswith("CellsFailed: 1 of 4 cells failed; ")
    last = {event["cell"]: event for event in told(study)}
    end = last.pop(bad.id.key)
    assert (end["status"], end["attempts"]) == ("failed", 2)
    message = (
        "the process of this cell was ended by signal 9 (SIGKILL), alone in its job as well; is there enough memory? "
        f"Raise memory_gib of the profile, then run espalier retry {study}"
    )
    assert end["message"] == message
    assert {event["status"] for event in last.values()} == {"done"}
    standing = {each.name: each for each in overview(plan, study, SlurmCluster()).cells}
    assert standing[bad.id.name].state == "failed"
    assert message in standing[bad.id.name].message
    (study / f"kill-{bad.id.key}").unlink()
    slurm.submit(plan, study, PROFILE, SlurmCluster())
    assert fake.run(submissions(study)[1].arrays[0].ids[0]) == ""
    assert all(Store(study).is_committed(cell.id) for cell in pack)


@pytest.mark.slow
def test_a_process_that_is_gone_before_it_begins_is_no_fault_of_its_cell(
    fake: FakeSlurm, study: Path, pack: list[Cell]
) -> None:
    unlucky, hopeless = pack[1:3]
    (study / f"die-{unlucky.id.key}").write_text("12")
    (study / f"die-{hopeless.id.key}").touch()
    assert fake.run(first_job(study)).startswith("CellsFailed: 1 of 4 cells failed; ")
    assert [event["event"] for event in told_of(study, unlucky)] == ["started", "ended"]
    (end,) = told_of(study, hopeless)
    assert (end["status"], end["attempts"]) == ("failed", _cells_at_once.MOST_STARTS)
    assert end["message"].startswith("the process of this cell was ended by signal 9 (SIGKILL) before it began; ")
    assert all(Store(study).is_committed(cell.id) for cell in pack if cell is not hopeless)


@pytest.mark.slow
def test_when_the_folder_takes_no_more_files_the_others_are_saved_first(
    fake: FakeSlurm, study: Path, pack: list[Cell]
) -> None:
    training, refused, *others = pack
    for name in ("gate", "refuse-later", f"refuse-{refused.id.key}"):
        (study / name).touch()

    def refuse() -> None:
        until(lambda: len(list(study.glob("begun-*"))) == 2)
        (study / "refuse-later").unlink()
        until(lambda: bool(list(study.glob("stopped-*"))))
        (study / "gate").unlink()

    with meanwhile(refuse):
        assert fake.run(first_job(study)) == "UserError: the folder cannot be written"
    assert list(Store(study).checkpoint_path(training.id).rglob("*.h5"))
    assert not [event for cell in others for event in told_of(study, cell)]
    assert not list((study / "cells").glob("*.claim-*"))


@pytest.mark.slow
def test_on_gpus_cells_are_computed_in_a_child_and_another_one_when_its_gpu_is_lost(
    study: Path, pack: list[Cell], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)  # in this process alone
    bad, *others = pack
    (study / f"assert-{bad.id.key}").touch()
    with pytest.raises(CellsFailed, match="1 of 4 cells failed; "):
        run_element(str(study), submissions(study)[0].name, 0, 0, None, 20, 1)
    assert [event["event"] for event in told(study)] == ["started", "ended"] * 4
    assert told_of(study, bad)[-1]["message"] == "CUDA error: device-side assert triggered"
    assert all(Store(study).is_committed(cell.id) for cell in others)
    first, *workers = [(study / f"begun-{cell.id.key}").read_text() for cell in pack]
    assert len(set(workers)) == 1
    assert len({first, *workers, str(os.getpid())}) == 3


def test_a_cell_that_comes_after_the_stop_was_not_begun(study: Path, pack: list[Cell]) -> None:
    folder = SubmissionFolder(study, submissions(study)[0].name)
    element = Element(folder, 0, 0, Notice(stop=True), num_done=1)
    assert _cell_process._tried(element, pack[0], {})["event"] == "stopped"
    assert not told(study)


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
