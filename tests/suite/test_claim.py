"""Claims, with real processes that race, die and wait."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from suite import claim
from suite.claim import Assignment, Owner, claimed, live_owner, live_owners

HOLD = """
import sys, time, pathlib
from suite.claim import claimed
with claimed(pathlib.Path(sys.argv[1]), lambda: False) as ours:
    print(ours, flush=True)
    time.sleep(600)
"""
ONCE = """
import sys, time, pathlib
from suite.claim import claimed
path, record = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
with claimed(path, record.exists) as ours:
    if ours and not record.exists():
        print("computed", flush=True)
        time.sleep(0.2)
        record.touch()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "prune-0.claim"


def start(program: str, *arguments: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-c", program, *map(str, arguments)], stdout=subprocess.PIPE, text=True)


def write(path: Path, owner: Owner, age_s: float = 0) -> None:
    path.write_text(json.dumps(vars(owner)))
    os.utime(path, (time.time() - age_s,) * 2)


def taken(path: Path, limit_s: float = 0.5) -> bool:
    """Whether the claim is ours within that time; whoever waits longer is let go."""
    deadline_s = time.monotonic() + limit_s
    with claimed(path, lambda: time.monotonic() > deadline_s) as ours:
        return ours


def test_a_claim_names_its_owner_while_it_is_held_and_is_gone_afterwards(path: Path) -> None:
    with claimed(path, lambda: False) as ours:
        assert ours
        owner = live_owner(path)
        assert owner is not None
        assert (owner.pid, live_owners(path.parent)) == (os.getpid(), {"prune-0": owner})
        assert not taken(path)
    assert live_owner(path) is None
    assert list(path.parent.iterdir()) == []


def test_an_error_gives_the_claim_back(path: Path) -> None:
    with pytest.raises(RuntimeError), claimed(path, lambda: False):
        raise RuntimeError
    assert list(path.parent.iterdir()) == []


def test_of_many_processes_one_computes(path: Path, tmp_path: Path) -> None:
    record = tmp_path / "record"
    racers = [start(ONCE, path, record) for _ in range(4)]
    told = [racer.communicate(timeout=60)[0] for racer in racers]
    assert sorted(told) == ["", "", "", "computed\n"]
    assert list(tmp_path.iterdir()) == [record]


def test_the_claim_of_a_killed_process_is_taken_over_at_once(path: Path) -> None:
    holder = start(HOLD, path)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "True\n"
    assert not taken(path)
    holder.send_signal(signal.SIGKILL)
    holder.stdout.read()  # dead, and not reaped yet: a zombie holds no claim
    assert taken(path, limit_s=30)
    holder.wait()
    holder.stdout.close()
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize(("age_s", "ours"), [(claim.STALE_S - 60, False), (claim.STALE_S + 60, True)])
def test_a_claim_of_another_host_counts_as_long_as_it_is_touched(age_s: float, ours: bool, path: Path) -> None:
    write(path.with_name("prune-0.claim-0"), Owner("far", "far boot pids", 1, "7"), age_s)
    assert (live_owner(path) is None) == ours
    assert taken(path) == ours


def test_a_requeued_job_takes_over_its_own_claim(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(path.with_name("prune-0.claim-0"), Owner("far", "far boot pids", 1, "7", "study-1 12", "0"))
    monkeypatch.setenv("SLURM_JOB_NAME", "study-1")
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    assert not taken(path)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert taken(path)


def test_a_driver_that_tries_again_takes_over_the_claim_of_its_lost_worker(path: Path) -> None:
    write(path.with_name("prune-0.claim-0"), Owner("far", "far boot pids", 1, "7", "driver-a", "1"))

    def taken_by(assignment: Assignment) -> bool:
        deadline_s = time.monotonic() + 0.5
        with claimed(path, lambda: time.monotonic() > deadline_s, assignment=assignment) as ours:
            return ours

    assert not taken_by(Assignment("driver-b", "2"))
    assert taken_by(Assignment("driver-a", "2"))


def test_an_owner_who_wakes_up_late_leaves_his_successors_claim_alone(path: Path) -> None:
    with claimed(path, lambda: False):
        successor = path.with_name("prune-0.claim-1")
        write(successor, Owner("far", "far boot pids", 1, "7"))
    assert list(path.parent.iterdir()) == [successor]


@pytest.mark.parametrize("content", ["", "{", '{"pid": 1, "nonsense": 2}', "[]"])
def test_a_claim_that_is_not_written_yet_counts(content: str, path: Path) -> None:
    path.with_name("prune-0.claim-0").write_text(content)
    assert not taken(path)


def test_a_claim_is_touched_while_it_is_held(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim, "HEARTBEAT_S", 0.01)
    with claimed(path, lambda: False):
        (own,) = path.parent.iterdir()
        os.utime(own, (0, 0))
        deadline_s = time.monotonic() + 30
        while own.stat().st_mtime < 1 and time.monotonic() < deadline_s:
            time.sleep(0.01)
        assert own.stat().st_mtime > 1


def test_whoever_waits_is_told_once_for_whom(path: Path) -> None:
    told: list[Owner] = []
    over, waits = threading.Event(), threading.Event()

    def wait() -> None:
        with claimed(path, over.is_set, lambda owner: (told.append(owner), waits.set())[0]) as ours:
            assert not ours

    with claimed(path, lambda: False):
        thread = threading.Thread(target=wait)
        thread.start()
        assert waits.wait(30)
        over.set()
        thread.join(30)
    assert [owner.text for owner in told] == [f"process {os.getpid()} on {Owner(**vars(told[0])).host}"]
