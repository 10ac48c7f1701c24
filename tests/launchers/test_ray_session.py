import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from launchers import _ray_session
from launchers._ray_session import SOCKET_ROOT_LIMIT, ray_session
from suite.errors import UserError

Gone = Callable[[list[int]], bool]

pytest.importorskip("ray")
# Runs one session, tells what it sees in it, waits for a word on its standard input, and obeys.
SCRIPT = """
import json, os, stat, sys
from pathlib import Path
from espalier.terminal import interrupt_has_arrived, interrupt_on_signals
from launchers._ray_session import ray_session

interrupt_on_signals()
before = dict(os.environ)
def mode(path): return oct(stat.S_IMODE(os.stat(path).st_mode))
try:
    with ray_session(2, 0) as ray:
        folder = Path(os.environ["RAY_AUTH_TOKEN_PATH"]).parent
        print(json.dumps({
            "answer": ray.get(ray.remote(lambda: 42).remote()),
            "resources": ray.cluster_resources(),
            "folder": str(folder),
            "folder_mode": mode(folder),
            "token_mode": mode(folder / "token"),
            "token_length": len((folder / "token").read_text()),
            "dashboard": ray._private.worker.global_worker.node.webui_url,
            "namespace": ray.get_runtime_context().namespace,
            "in_it": {name: value for name, value in os.environ.items() if before.get(name) != value},
        }), flush=True)
        if sys.stdin.readline().strip() == "raise":
            raise ArithmeticError
except (ArithmeticError, KeyboardInterrupt) as error:
    interrupt_has_arrived()
    print(json.dumps({"error": type(error).__name__}))
changed = {name for name in before | dict(os.environ) if before.get(name) != os.environ.get(name)}
print(json.dumps({"changed": sorted(changed), "connected": ray.is_initialized()}))
"""


def descendants(pid: int) -> list[int]:
    """Return all processes below one, as the system tells at this moment."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:  # ended meanwhile
                continue
    found, rest = [], [pid]
    while rest:
        below = [child for child, parent in parents.items() if parent == rest[0]]
        found += below
        rest = rest[1:] + below
    return found


class Child:
    """A process with a session of its own; HOME and TMPDIR are fresh folders, RAY_ADDRESS points to nowhere."""

    def __init__(self, folder: Path) -> None:
        self.home, self.temporary = folder / "h", folder / "t"
        self.home.mkdir()
        self.temporary.mkdir()
        environment = os.environ | {
            "HOME": str(self.home),
            "TMPDIR": str(self.temporary),
            "RAY_ADDRESS": "127.0.0.1:1",
            "RAY_AUTH_MODE": "disabled",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, self.process.communicate(timeout=60)[1]
        self.facts: dict[str, Any] = json.loads(line)
        self.pids = descendants(self.process.pid)

    def end(self, word: str = "") -> list[dict[str, Any]]:
        out, err = self.process.communicate(f"{word}\n", timeout=120)
        return self._lines(out, err)

    def interrupt(self) -> list[dict[str, Any]]:
        """Send one SIGINT and no word, so that only the signal can end the process."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(timeout=120)
        return self._lines(*self.process.communicate())

    def _lines(self, out: str, err: str) -> list[dict[str, Any]]:
        assert "Traceback" not in err
        return [json.loads(line) for line in out.splitlines()]


@pytest.fixture
def child() -> Iterator[Child]:
    folder = Path(tempfile.mkdtemp(prefix="e-"))  # short: Ray's sockets have to fit in
    started = Child(folder)
    yield started
    if started.process.poll() is None:
        started.process.kill()
        started.process.communicate()
    shutil.rmtree(folder, ignore_errors=True)


def assert_nothing_is_left(child: Child, gone: Gone) -> None:
    assert len(child.pids) >= 3  # at least gcs_server, raylet and a worker: the list was taken while they ran
    assert gone(child.pids)
    assert list(child.temporary.glob("esp-*")) == []
    assert not (child.home / ".ray").exists()


def test_a_session_is_private_and_leaves_nothing(child: Child, gone: Gone) -> None:
    facts, (after,) = child.facts, child.end()
    assert facts["answer"] == 42
    assert facts["resources"]["CPU"] == 2
    assert Path(facts["folder"]).parent == child.temporary
    assert (facts["folder_mode"], facts["token_mode"], facts["token_length"]) == ("0o700", "0o600", 64)
    assert not facts["dashboard"]
    assert facts["namespace"] == Path(facts["folder"]).name
    assert facts["in_it"]["RAY_AUTH_MODE"] == "token"
    assert facts["in_it"]["RAY_USAGE_STATS_ENABLED"] == "0"
    assert after == {"changed": [], "connected": False}
    assert child.process.returncode == 0
    assert_nothing_is_left(child, gone)


def test_an_exception_leaves_nothing(child: Child, gone: Gone) -> None:
    error, after = child.end("raise")
    assert error == {"error": "ArithmeticError"}
    assert after == {"changed": [], "connected": False}
    assert_nothing_is_left(child, gone)


def test_an_interrupt_leaves_nothing(child: Child, gone: Gone) -> None:
    error, after = child.interrupt()
    assert error == {"error": "KeyboardInterrupt"}
    assert after == {"changed": [], "connected": False}
    assert_nothing_is_left(child, gone)


def command_line(pid: int) -> list[bytes]:
    """Return the words that a process runs under at this moment; none when it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    except OSError:
        return [b""]


def is_agent(words: list[bytes]) -> bool:
    """Return whether a process is a helper of Ray's node: by its title, or before it has one by its script."""
    return b"Agent" in words[0] or any(word.endswith((b"/agent.py", b"/agent/main.py")) for word in words[:4])


def end_agents(pids: list[int]) -> None:
    """Kill Ray's small helpers, which wait a minute for a cluster that is gone, then end themselves.

    A helper is told by the words that it runs under when it is looked at: one that was forked a moment ago still
    has those of its parent, so they are looked at again until nothing is left.
    """
    deadline_s = time.monotonic() + 60
    while (left := {pid: words for pid in pids if any(words := command_line(pid))}) and time.monotonic() < deadline_s:
        for pid in (pid for pid, words in left.items() if is_agent(words)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)


def test_a_killed_driver_takes_its_cluster_with_it(child: Child, gone: Gone) -> None:
    child.process.kill()
    child.process.communicate()
    end_agents(child.pids)
    assert len(child.pids) >= 5  # gcs_server, raylet and a worker beside the two helpers
    assert gone(child.pids), [(pid, command_line(pid)) for pid in child.pids]


@pytest.mark.slow
def test_sessions_follow_each_other_and_keep_the_process_as_it_was() -> None:
    before, on_terminate = dict(os.environ), signal.getsignal(signal.SIGTERM)
    for number in range(2):  # the second has a token of its own, which Ray would rather not read
        with ray_session(1, 0) as ray:
            assert ray.get(ray.remote(num_cpus=1)(lambda answer: answer).remote(number), timeout=120) == number
            assert signal.getsignal(signal.SIGTERM) == on_terminate
    assert dict(os.environ) == before


def test_without_ray_the_repair_is_named_and_nothing_is_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setattr(_ray_session, "_short_root", lambda: str(tmp_path))
    before = dict(os.environ)
    with pytest.raises(UserError, match=r"pip install -e '\.\[ray\]'"), ray_session(1, 0):
        pass
    assert dict(os.environ) == before
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("length", "root"), [(SOCKET_ROOT_LIMIT, None), (SOCKET_ROOT_LIMIT + 1, "/tmp")])
def test_a_temporary_folder_too_long_for_sockets_is_not_used(
    length: int, root: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/" + "x" * (length - 1))
    assert _ray_session._short_root() == root
