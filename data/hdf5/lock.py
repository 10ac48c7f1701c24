"""A lock between processes, as far as the file system has one: who holds it and ends, however it ends, lets it go."""

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PAUSE_S = 0.02
_HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)


@contextmanager
def exclusive(path: Path, patience_s: float) -> Iterator[bool]:
    """Hold a lock, if it can be had.

    Many cluster file systems have no locks, or have them between the processes of one node alone; a process that was
    suspended holds its own for hours. So this keeps from waste, and nothing may be lost where it keeps nobody out.

    Args:
        path: the lock's file, made where there is none; it stays, for removing it would make two locks of one. Or a
            folder that is there.
        patience_s: how long to wait for whoever holds it.

    Yields:
        Whether it is held.
    """
    try:
        flags = os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT
        descriptor = os.open(path, flags | os.O_CLOEXEC, 0o666)
    except OSError:
        yield False  # what is to be written will tell better why nothing can be
        return
    try:
        yield _taken(descriptor, time.monotonic() + patience_s)
    finally:
        os.close(descriptor)


def _taken(descriptor: int, deadline_s: float) -> bool:
    while True:
        try:
            # Not lockf: its locks do not part two threads of a process, and go with any descriptor of the file.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _HELD or time.monotonic() > deadline_s:
                return False
            time.sleep(_PAUSE_S)
        else:
            return True
