import errno
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from data.hdf5 import commit_bytes, sweep

OLD = b"old" * 1000


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    return process.pid


def test_creates_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "cell.h5"
    for content in (OLD, b"new", b""):
        commit_bytes(path, content)
        assert path.read_bytes() == content
        assert names(tmp_path) == ["cell.h5"]


def test_the_umask_decides_the_mode(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        commit_bytes(tmp_path / "cell.h5", b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "cell.h5").stat().st_mode & 0o777 == 0o640


def test_a_write_that_takes_less_than_asked_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, content: write(descriptor, content[:7]))
    commit_bytes(tmp_path / "cell.h5", OLD)
    assert (tmp_path / "cell.h5").read_bytes() == OLD


def fails(error: BaseException) -> Callable[..., int]:
    def fail(*arguments: object) -> int:
        raise error

    return fail


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_an_error_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    path = tmp_path / "cell.h5"
    commit_bytes(path, OLD)
    with monkeypatch.context() as patch:
        patch.setattr(os, call, fails(OSError(code, os.strerror(code))))
        with pytest.raises(OSError, match=os.strerror(code)) as caught:
            commit_bytes(path, b"new")
    assert caught.value.errno == code
    assert path.read_bytes() == OLD
    assert names(tmp_path) == ["cell.h5"]


def test_an_interrupt_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit_bytes(tmp_path / "cell.h5", OLD)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fails(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            commit_bytes(tmp_path / "cell.h5", b"new")
    assert (tmp_path / "cell.h5").read_bytes() == OLD
    assert names(tmp_path) == ["cell.h5"]


def test_a_limit_that_the_kernel_enforces_in_mid_write(tmp_path: Path) -> None:
    commit_bytes(tmp_path / "cell.h5", OLD)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            commit_bytes(tmp_path / "cell.h5", bytes(3 << 20))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "cell.h5").read_bytes() == OLD
    assert names(tmp_path) == ["cell.h5"]


def test_a_folder_that_cannot_be_synced_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def fsync(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 2:  # the first is the file's
            raise OSError(errno.EINVAL, "folders cannot be synced here")

    monkeypatch.setattr(os, "fsync", fsync)
    commit_bytes(tmp_path / "cell.h5", b"new")
    assert len(calls) == 2
    assert (tmp_path / "cell.h5").read_bytes() == b"new"


ENDLESS = """
import sys
from pathlib import Path
from data.hdf5.commit import commit_bytes
contents = [bytes([number]) * (1 << 20) for number in range(8)]
print("ready", flush=True)
while True:
    for content in contents:
        commit_bytes(Path(sys.argv[1]), content)
"""


def test_kill_leaves_one_whole_file(tmp_path: Path) -> None:
    moments = random.Random(1)
    path = tmp_path / "cell.h5"
    for _ in range(6):
        process = subprocess.Popen([sys.executable, "-c", ENDLESS, str(path)], stdout=subprocess.PIPE, cwd=Path.cwd())
        assert process.stdout is not None
        with process.stdout:
            assert process.stdout.readline() == b"ready\n"
            time.sleep(moments.uniform(0.0, 0.1))
            process.send_signal(signal.SIGKILL)
            process.wait()
        if path.exists():
            content = path.read_bytes()
            assert len(content) == 1 << 20
            assert len(set(content)) == 1
        assert len(names(tmp_path)) <= 2
        sweep(tmp_path)
        assert names(tmp_path) in ([], ["cell.h5"])
    assert path.exists()


def test_sweep_takes_the_dead_of_this_host_only(tmp_path: Path) -> None:
    host = socket.gethostname().replace("-", "_")
    parent = os.getppid()
    keep = [
        f".tmp-{host}-{os.getpid()}-00112233-a.h5",
        f".tmp-{host}-{parent}-00112233-a.h5",
        f".tmp-elsewhere-{dead_pid()}-00112233-a.h5",
        ".tmp-notes",
        "cell.h5",
    ]
    for name in [*keep, f".tmp-{host}-{dead_pid()}-00112233-spectrum-0a1b.h5"]:
        (tmp_path / name).write_bytes(b"x")
    assert sweep(tmp_path) == 1
    assert names(tmp_path) == sorted(keep)
    yesterday_s = time.time() - 25 * 3600
    os.utime(tmp_path / keep[2], (yesterday_s, yesterday_s))
    os.utime(tmp_path / keep[0], (yesterday_s, yesterday_s))
    assert sweep(tmp_path) == 1
    assert names(tmp_path) == sorted(set(keep) - {keep[2]})


def test_sweep_knows_the_names_that_commit_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "gpu-node-17.cluster")
    pid = dead_pid()
    monkeypatch.setattr(os, "getpid", lambda: pid)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fails(OSError("stuck")))
        patch.setattr(Path, "unlink", fails(OSError("stuck")))
        with pytest.raises(OSError, match="stuck"):
            commit_bytes(tmp_path / "spectrum-0a1b.h5", b"x")
    (left,) = names(tmp_path)
    assert left.startswith(".tmp-gpu_node_17.cluster-")
    assert left.endswith("-spectrum-0a1b.h5")
    assert sweep(tmp_path) == 1
    assert names(tmp_path) == []
