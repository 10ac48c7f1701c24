"""A Python process of this project's own, seen from the one that starts it: lines go both ways over one socket.

The child has one end of the socket as its standard input. When the process that started it dies, however it dies, the
socket closes, and the child ends by itself (suite.parent_process).
"""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, BinaryIO

Word = dict[str, Any]
NOT_FOR_CHILDREN = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)  # its parent decides what is saved, and when it ends


@dataclass
class ChildProcess:
    """A child at work.

    Attributes:
        process: its process.
        channel: this side's end of the socket; reading from it does not wait.
    """

    process: subprocess.Popen[bytes]
    channel: socket.socket
    _unread: bytes = field(default=b"", init=False)

    def words(self) -> Iterator[Word]:
        """Yield what has come; a closed channel is the end."""
        with suppress(BlockingIOError, ConnectionError):
            while content := self.channel.recv(1 << 16):
                self._unread += content
        *lines, self._unread = self._unread.split(b"\n")
        yield from map(json.loads, lines)

    def tell(self, line: str) -> None:
        """Tell it something; if it is gone, that is found out soon enough."""
        with suppress(OSError):
            self.channel.sendall(line.encode() + b"\n")

    @property
    def ending(self) -> str:
        """Return how a process that runs no more was ended."""
        code = self.process.returncode
        return f"by signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"with exit code {code}"

    @property
    def was_killed(self) -> bool:
        """Return whether it met SIGKILL, as whoever takes more memory than there is does."""
        return bool(self.process.returncode == -signal.SIGKILL)


def started(
    module: str,
    assignment: Mapping[str, Any],
    output: BinaryIO | None = None,
    variables: Mapping[str, str] | None = None,
) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start `python -m module` and tell it its assignment; return its process and this side's end of the socket.

    Args:
        module: its name; it calls `suite.parent_process.Parent`.
        assignment: JSON.
        output: where its output goes; None: where this process's goes.
        variables: of its environment, beside those of this process.
    """
    ours, theirs = socket.socketpair()
    path = os.pathsep.join(each or os.getcwd() for each in sys.path)
    # torch warns of what is meant
    environment = {"TORCH_CPP_LOG_LEVEL": "ERROR"} | os.environ | {"PYTHONPATH": path} | dict(variables or {})
    with theirs, _signals_held_back():
        process = subprocess.Popen(  # noqa: S603  fixed words, no shell
            [sys.executable, "-P", "-m", module],
            stdin=theirs.fileno(),
            stdout=output,
            stderr=output,
            env=environment,
        )
    with suppress(OSError):  # it may be gone already
        ours.sendall(json.dumps(assignment).encode() + b"\n")
    ours.setblocking(False)
    return process, ours


def end_all(children: Sequence[ChildProcess]) -> None:
    """End children and wait until they are gone."""
    for each in children:
        each.process.kill()
    for each in children:
        each.process.wait()
        each.channel.close()


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """Hold signals back from a child, which inherits that, until it ignores them: until then they would end it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, NOT_FOR_CHILDREN)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
