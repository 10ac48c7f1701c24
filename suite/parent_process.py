"""The process that started this one, seen from here: see suite.child_process."""

import json
import os
import signal
import socket
import threading
from collections.abc import Callable
from typing import Any, BinaryIO

from suite.child_process import NOT_FOR_CHILDREN


class Parent:
    """What this process was told to do, and by whom. For the main thread, once.

    Attributes:
        assignment: the first line that came.
    """

    def __init__(self) -> None:
        """Leave signals to the parent, take the socket that is standard input, and leave an empty one in its place."""
        for each in NOT_FOR_CHILDREN:
            signal.signal(each, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, NOT_FOR_CHILDREN)
        self._channel = socket.socket(fileno=os.dup(0))
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        self._lines: BinaryIO = self._channel.makefile("rb")
        self.assignment: dict[str, Any] = json.loads(self._lines.readline())

    def say(self, word: dict[str, Any]) -> None:
        """Tell the parent something."""
        self._channel.sendall(json.dumps(word).encode() + b"\n")

    def listen(self, hear: Callable[[str], None], bereft: Callable[[], None] = lambda: None) -> None:
        """Have a thread call `hear` with each later line, and end this process when the parent is gone.

        bereft: called before that.
        """

        def wait() -> None:
            try:
                for line in self._lines:
                    hear(line.decode().removesuffix("\n"))
            finally:
                bereft()
                os._exit(1)

        threading.Thread(target=wait, daemon=True).start()
