import subprocess
import sys
import time
from pathlib import Path

import pytest

from data.hdf5 import exclusive
from data.hdf5 import lock as module

HOLD = """
import sys, time
from pathlib import Path
from data.hdf5 import exclusive

with exclusive(Path(sys.argv[1]), 0.0) as is_held:
    print(is_held, flush=True)
    time.sleep(60)
"""


def test_a_lock_is_held_by_one_and_let_go_in_the_end(tmp_path: Path) -> None:
    with exclusive(tmp_path / "lock", 0.0) as first, exclusive(tmp_path / "lock", 0.05) as second:
        assert (first, second) == (True, False)
    with exclusive(tmp_path / "lock", 0.0) as third:
        assert third


def test_a_process_that_is_killed_lets_its_lock_go(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "lock")], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    with holder:
        assert holder.stdout.readline() == "True\n"
        with exclusive(tmp_path / "lock", 0.1) as meanwhile:
            assert not meanwhile
        holder.kill()
        begin_s = time.monotonic()
        with exclusive(tmp_path / "lock", 20.0) as afterwards:
            assert afterwards
        assert time.monotonic() - begin_s < 10


def test_where_there_are_no_locks_nobody_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(module.fcntl, "flock", none)
    with exclusive(tmp_path / "lock", 60.0) as is_held:
        assert not is_held
    with exclusive(tmp_path / "no such folder" / "lock", 60.0) as is_held:
        assert not is_held
