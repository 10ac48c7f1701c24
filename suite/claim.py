"""Claims: whoever computes a cell says so in the folder first, so that nobody else does the same work beside him.

A claim is a file beside the cell's, made by O_CREAT | O_EXCL, which also NFS grants to one process alone. Its owner
touches it while he works and removes it in the end. It is stale when its owner is known to be dead (a process of the
same host, an earlier start of the same Slurm job or by the same driver), or when nobody has touched it for STALE_S by
the file server's clock. A stale claim is never replaced: its successor is the file with the next number, which again
one process alone can make. Claims save work and nothing else: should two compute the same cell, they commit the same
record.
"""

import json
import os
import platform
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from data.hdf5 import temporary_name

HEARTBEAT_S = 30.0
# NFS clients may believe old attributes for a minute, and a busy process or file server may miss a few beats.
STALE_S = 600.0
SHORTEST_S, LONGEST_S, SLOWER = 0.1, 10.0, 1.3  # between two looks at somebody else's claim
_NUMBERED = re.compile(r"\.claim-(\d+)$")


class Assignment(NamedTuple):
    """What gives a cell to one process at a time, so that a new start means that the one before is dead.

    Attributes:
        by: names it for ever: a Slurm job's name and number (numbers begin again when a controller is set up anew), or
            one word of a driver.
        start: tells starts apart.
    """

    by: str
    start: str


@dataclass(frozen=True)
class Owner:
    """Who computes a cell.

    Attributes:
        host: its name.
        place: within which the pid means one process: this start of this host, and this table of processes.
        pid: of the process.
        born: when that process began, in the kernel's ticks; a pid is given again.
        job: what gives a cell to one process at a time, see Assignment: "NAME ID" of its Slurm job, or nothing.
        restarts: how often that job was requeued.
        time_utc: when the claim was made.
    """

    host: str = "?"
    place: str = ""
    pid: int = 0
    born: str = ""
    job: str = ""
    restarts: str = ""
    time_utc: str = ""

    @property
    def text(self) -> str:
        """Return it in words."""
        name, _, number = self.job.rpartition(" ")
        return f"job {number} on {self.host}" if name else f"process {self.pid} on {self.host}"

    @property
    def job_name(self) -> str:
        """Return the name of its Slurm job, or nothing."""
        return self.job.rpartition(" ")[0]

    def is_dead(self, here: "Owner") -> bool:
        """Return whether it is certain, for somebody here, that the owner works no more."""
        if self.job and self.job == here.job and self.restarts != here.restarts:
            return True
        return bool(self.place) and self.place == here.place and _birth(self.pid) != self.born


@contextmanager
def claimed(
    path: Path,
    is_done: Callable[[], bool],
    told: Callable[[Owner], None] = lambda _: None,
    assignment: Assignment | None = None,
) -> Iterator[bool]:
    """Hold the claim of one cell, or wait while somebody else does.

    Args:
        path: of the claim, without its number; its folder exists.
        is_done: whether the cell has come to an end, so that nobody has to compute it.
        told: called once, with the owner, when a live claim of somebody else is met.
        assignment: who gave the cell to this process; None: its Slurm job, if there is one.

    Yields:
        True: the cell is the caller's to compute, unless somebody has just committed it. False: it has come to its end
        while the caller waited.

    Raises:
        OSError: the folder takes no more files.

    Cost: two small files' worth of metadata, and a thread that sleeps.
    """
    here = _this_process(assignment)
    own, pause_s, met = None, SHORTEST_S, False
    while own is None and not (met and is_done()):
        owner, own = _take(path, here)
        if owner is not None:
            if not met:
                told(owner)
            met = True
            time.sleep(pause_s)
            pause_s = min(LONGEST_S, SLOWER * pause_s)
    if own is None or (met and is_done()):  # it may have ended, and its claim gone, between two looks
        if own is not None:
            _release(path, own)
        yield False
        return
    over = threading.Event()
    threading.Thread(target=_beat, args=(own, over), daemon=True).start()
    try:
        yield True
    finally:
        over.set()
        _release(path, own)


def live_owner(path: Path) -> Owner | None:
    """Return who computes a cell now, or None; by this host's clock, for whoever only looks writes nothing.

    Args:
        path: of the claim, without its number.
    """
    newest = _newest(path)
    return None if newest is None else _live(newest, _this_process(), time.time())


def live_owners(folder: Path) -> dict[str, Owner]:
    """Return name of a cell -> who computes it now, by one listing of the folder and one small file for each claim."""
    newest: dict[str, Path] = {}
    for path in folder.glob("*.claim-*"):
        name = path.name.partition(".claim-")[0]
        newest[name] = max(newest.get(name, path), path, key=_number)
    here, now_s = _this_process(), time.time()
    found = {name: _live(path, here, now_s) for name, path in newest.items()}
    return {name: owner for name, owner in found.items() if owner is not None}


def release_for(owner: Owner, path: Path) -> None:
    """Remove a claim whose owner works no more, as somebody knows who has asked Slurm; a later owner's stays.

    Args:
        owner: as `live_owners` found him.
        path: of the claim, without its number.
    """
    newest = _newest(path)
    if newest is not None and _live(newest, _this_process(), time.time()) == owner:
        _release(path, newest)


def _release(path: Path, own: Path) -> None:
    """Remove a claim, and stale ones of earlier owners; one of a later owner, who took this for stale, stays."""
    for number in range(_number(own), -1, -1):
        with suppress(OSError):  # what stays will be stale, or goes with `Store.prepare`
            _numbered(path, number).unlink()


def _take(path: Path, here: Owner) -> tuple[Owner | None, Path | None]:
    """Return the owner of a live claim, or the claim that was just made, or neither: somebody else was faster."""
    newest = _newest(path)
    owner = None if newest is None else _live(newest, here, _server_time_s(path.parent))
    if owner is not None:
        return owner, None
    own = _numbered(path, 0 if newest is None else _number(newest) + 1)
    try:
        descriptor = os.open(own, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except FileExistsError:
        return None, None
    try:
        os.write(descriptor, json.dumps(asdict(here)).encode())
    except OSError:
        own.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    return None, own


def _newest(path: Path) -> Path | None:
    """Return the claim with the highest number, by one look at each: the folder may hold tens of thousands of files.

    One that followed a claim whose owner came back from the dead, and removed his own, is not found: two may compute.
    """
    number = 0
    while _numbered(path, number).exists():
        number += 1
    return _numbered(path, number - 1) if number else None


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}-{number}")


def _number(path: Path) -> int:
    found = _NUMBERED.search(path.name)
    return int(found[1]) if found else -1


def _live(path: Path, here: Owner, now_s: float) -> Owner | None:
    """Return the owner of a claim, unless it is stale or gone. Opening it makes NFS ask its server how old it is."""
    try:
        with path.open("rb") as file:
            owner = _owner(file.read(4096))
            beaten_s = os.fstat(file.fileno()).st_mtime
    except OSError:
        return None
    return None if owner.is_dead(here) or now_s - beaten_s > STALE_S else owner


def _owner(content: bytes) -> Owner:
    """Return who made a claim; one that is not written yet, or damaged, has an unknown owner and ages like all."""
    try:
        return Owner(**json.loads(content))
    except (ValueError, TypeError):
        return Owner()


def _server_time_s(folder: Path) -> float:
    """Return the time as the file system has it, for clocks of hosts differ; this host's where nothing can be written.

    A folder's own time would do, but touching it takes more than the right to write into it.
    """
    probe = folder / temporary_name("clock")
    try:
        descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError:
        return time.time()
    try:
        return os.fstat(descriptor).st_mtime
    finally:
        os.close(descriptor)
        probe.unlink(missing_ok=True)


def _beat(own: Path, over: threading.Event) -> None:
    """Touch a claim until its cell has ended, or somebody has taken it away."""
    while not over.wait(HEARTBEAT_S):
        try:
            os.utime(own)
        except FileNotFoundError:
            return
        except OSError:  # a file server that is silent for a while
            continue


def _this_process(assignment: Assignment | None = None) -> Owner:
    by, start = assignment or _slurm_job()
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Owner(platform.node(), _place(), os.getpid(), _birth(os.getpid()), by, start, now)


def _slurm_job() -> Assignment:
    job = os.environ.get("SLURM_JOB_ID", "")
    if not job:
        return Assignment("", "")
    return Assignment(f"{os.environ.get('SLURM_JOB_NAME', 'job')} {job}", os.environ.get("SLURM_RESTART_COUNT", "0"))


def _place() -> str:
    """Return what tells this host, since its last start, and its table of processes from all others, or nothing."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{platform.node()} {boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _birth(pid: int) -> str:
    """Return when a process of this host began, or nothing if it runs no more."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if words[0] in "ZX" else words[19]
