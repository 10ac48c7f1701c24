"""A child that is slow to start, is sent signals meanwhile, and ends with its parent's side of the socket."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from suite.child_process import ChildProcess, end_all, started

PATIENCE_S = 60  # a bound for a busy machine, never a measurement
CHILD = """
import threading, time
from pathlib import Path
from suite.parent_process import Parent

HERE = Path(__file__).parent
(HERE / "up").touch()
while not (HERE / "go").exists():  # as long as it imports, say
    time.sleep(0.01)
parent = Parent()
parent.listen(lambda line: parent.say({"heard": line}), (HERE / "bereft").touch)
parent.say(parent.assignment)
threading.Event().wait()
"""


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ChildProcess:
    (tmp_path / "slow_child.py").write_text(CHILD)
    monkeypatch.syspath_prepend(tmp_path)
    return ChildProcess(*started("slow_child", {"number": 3}))


def until(reached: Callable[[], Any]) -> Any:
    deadline_s = time.monotonic() + PATIENCE_S
    while not (found := reached()):
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    return found


def heard(child: ChildProcess) -> list[dict[str, Any]]:
    return until(lambda: list(child.words()))


def test_signals_do_not_end_a_child_while_it_starts_nor_later(child: ChildProcess, tmp_path: Path) -> None:
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert not mask & {signal.SIGTERM, signal.SIGUSR2}  # they are held back from the child alone
    until((tmp_path / "up").exists)
    for each in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT):
        os.kill(child.process.pid, each)
    (tmp_path / "go").touch()
    assert heard(child) == [{"number": 3}]
    os.kill(child.process.pid, signal.SIGUSR2)
    child.tell("save")
    assert heard(child) == [{"heard": "save"}]
    child.channel.close()  # as when its parent dies
    assert child.process.wait(PATIENCE_S) == 1
    assert (tmp_path / "bereft").exists()
    assert (child.ending, child.was_killed) == ("with exit code 1", False)


def test_children_are_ended(child: ChildProcess) -> None:
    end_all([child])
    assert (child.ending, child.was_killed) == ("by signal 9 (SIGKILL)", True)
    child.tell("it is gone")
