"""What tests put on this machine: clusters and small disks. What a killed run has left, the next one removes."""

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

DEVCLUSTER = Path(__file__).parents[2] / "slurm" / "devcluster"
DISK = "espalier-disk-"  # not below pytest's own folder, where a mount that is left makes every later pytest fail
LOCK = "tests.lock"  # in a cluster's folder, held by the process whose tests have started it


def devcluster(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run slurm/devcluster to its end."""
    return subprocess.run([DEVCLUSTER, *words], env=os.environ | variables, capture_output=True, text=True, check=False)


def configuration_of(answer: subprocess.CompletedProcess[str]) -> Path:
    """Return the file that SLURM_CONF has to name, as `devcluster up` and `devcluster status` print it."""
    found = re.search("export SLURM_CONF=(.*)", answer.stdout)
    assert found is not None, answer
    return Path(found[1])


@contextmanager
def owned(configuration: Path) -> Iterator[None]:
    """Mark a cluster as that of this process's tests; the mark means nothing any more when the process is dead."""
    with configuration.with_name(LOCK).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def is_up(**variables: str) -> bool:
    """Return whether somebody has a cluster up, after what a killed run has left is gone.

    Raises:
        BlockingIOError: the tests of another process are at work on it.
    """
    status = devcluster("status", **variables)
    if status.returncode == 0:
        lock = configuration_of(status).with_name(LOCK)
        if not lock.exists():
            return True
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert devcluster("down", **variables).returncode == 0
    return False


@contextmanager
def disk(options: str) -> Iterator[Path]:
    """A file system of its own in memory, with such options of tmpfs."""
    folder = Path(tempfile.mkdtemp(prefix=f"{DISK}{os.getpid()}-"))
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
        yield folder
    finally:
        _remove(folder)


def remove_disks() -> None:
    """Remove the disks of processes that are dead."""
    for folder in Path(tempfile.gettempdir()).glob(f"{DISK}*"):
        if not Path("/proc", folder.name.removeprefix(DISK).partition("-")[0]).exists():
            _remove(folder)


def _remove(folder: Path) -> None:
    while os.path.ismount(folder):
        subprocess.run(["umount", folder], check=True)
    with suppress(FileNotFoundError):
        shutil.rmtree(folder)
