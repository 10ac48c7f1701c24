"""A test job of a few seconds: what a node of the cluster sees, and what starts there.

It is queued as the cells are: by submitit, with the profile's modules, setup, Python and container. What it finds it
writes into a folder of its own in the study's folder. In the end neither job nor file is left.
"""

import importlib.util
import json
import os
import platform
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data.hdf5 import commit_bytes
from launchers._fresh_folder import missing_folders, remove_folders
from launchers._job_states import JobState
from launchers._profile import Profile
from launchers._slurm_call import SlurmFailed
from launchers._slurm_cluster import Cluster, Order
from suite.plan import Cell
from suite.store import CellId

ANSWER = "answer.json"
IN_QUEUE_S, IN_ALL_S, ENDING_S, LATE_S = 300.0, 600.0, 60.0, 10.0
TIME_MIN, MEMORY_GIB = 5, 2.0  # Python from a busy network disk takes minutes, torch takes half a GiB
LOOK_S = 1.0


@dataclass(frozen=True)
class Answer:
    """What became of the test job.

    Attributes:
        job: its number.
        found: what it found, see `here`; empty when it left no answer.
        trouble: why it left none, in one line.
        is_late: whether it waited in the queue for too long, which says nothing of the profile.
        wall_s: from sbatch to the answer.
    """

    job: str
    found: dict[str, Any] = field(default_factory=dict)
    trouble: str = ""
    is_late: bool = False
    wall_s: float = 0.0


def examine(folder: str, scratch: str | None) -> None:
    """Write down what this node is like; what the test job does."""
    commit_bytes(Path(folder) / ANSWER, json.dumps(here(scratch)).encode())


def here(scratch: str | None = None) -> dict[str, Any]:
    """Return what this machine is like, for a comparison.

    Args:
        scratch: folder for temporary files; by default that of this process.
    """
    import torch

    try:
        with tempfile.TemporaryDirectory(prefix="espalier-", dir=scratch) as made:
            room: dict[str, Any] = {"scratch": str(Path(made).parent), "free_gib": shutil.disk_usage(made).free / 2**30}
    except OSError as error:
        room = {"scratch": scratch or tempfile.gettempdir(), "scratch_error": error.strerror or str(error)}
    return room | {
        "node": os.environ.get("SLURMD_NODENAME", platform.node()),
        "python": platform.python_version(),
        "executable": sys.executable,
        "torch": torch.__version__,
        "gpus": torch.cuda.device_count(),
        "ray": importlib.util.find_spec("ray") is not None,
        "espalier": str(Path(__file__).parents[1]),
    }


def run_trial(
    profile: Profile,
    folder: Path,
    cluster: Cluster,
    told: Callable[[str], None] = lambda _: None,
    sleep: Callable[[float], None] = time.sleep,
) -> Answer:
    """Queue a test job, wait for its answer, and leave nothing behind.

    Args:
        profile: how to queue; of its resources the partition, account and qos, and one GPU if it asks for any.
        folder: where the study is to be; made if it is not there, and removed in the end.
        cluster: where.
        told: called with one line whenever there is news, and with an empty one when the job has ended.
        sleep: waits between looks.

    Raises:
        UserError: sbatch refuses the job.
        SlurmFailed: Slurm does not answer; a job may be left, that of the name in the message.
        OSError: the folder cannot be written here.
    """
    made = missing_folders(folder)
    name = f"espalier-doctor-{secrets.token_hex(4)}"
    place = folder / f".{name}"
    try:
        place.mkdir(parents=True, mode=0o700)
        return _Trial(profile, place, name, cluster, told, sleep).run()
    finally:
        shutil.rmtree(place, ignore_errors=True)
        remove_folders(made)


@dataclass
class _Trial:
    profile: Profile
    place: Path
    name: str
    cluster: Cluster
    told: Callable[[str], None]
    sleep: Callable[[float], None]
    _said: str = ""

    def run(self) -> Answer:
        start_s = time.monotonic()
        jobs = self.place / "jobs"
        jobs.mkdir(mode=0o700)
        order = Order(self.name, jobs, self._resources(), [(str(self.place), self.profile.scratch)], (), examine)
        try:
            (job,) = self.cluster.queue(order, self.profile)
            self.cluster.release([job])
            return self._answer(job, start_s)
        finally:
            self.told("")
            self._end()

    def _resources(self) -> Any:
        cell = Cell(CellId("dense", "0" * 64), {}, {}, "test job", 1)
        asked = self.profile.model_copy(update={"kinds": {}}).resources(cell)
        memory_gib = None if asked.memory_gib is None else min(MEMORY_GIB, asked.memory_gib)
        small = {"nodes": 1, "cpus": 1, "gpus": min(1, asked.gpus), "memory_gib": memory_gib}
        return asked.model_copy(update=small | {"time_min": min(TIME_MIN, asked.time_min)})

    def _answer(self, job: str, start_s: float) -> Answer:
        """Return what the job found, or why it did not."""
        while (waited_s := time.monotonic() - start_s) < IN_ALL_S:
            found = self._found()
            if found:
                return Answer(job, found, wall_s=waited_s)
            state = self.cluster.standing([self.name]).get(job)
            if state is None or state.ended:
                return self._after_its_end(job, state, start_s)
            self._tell(job, state)
            if state.state == "PENDING" and waited_s > IN_QUEUE_S:
                return Answer(job, trouble=f"still waits after {waited_s:.0f} s: {state.reason}", is_late=True)
            self.sleep(LOOK_S)
        return Answer(job, trouble=f"left no answer within {IN_ALL_S:.0f} s")

    def _after_its_end(self, job: str, state: JobState | None, start_s: float) -> Answer:
        """Return the answer of a job that has ended: a file may be seen a moment later than that."""
        deadline_s = time.monotonic() + LATE_S
        while not (found := self._found()) and time.monotonic() < deadline_s:
            self.sleep(LOOK_S)
            with suppress(OSError):
                os.utime(self.place)  # makes NFS forget what it thought was in the folder
        if found:
            return Answer(job, found, wall_s=time.monotonic() - start_s)
        where = f" on {state.node}" if state and state.node else ""
        ended = f"ended{where} as {state.state}" if state else "is gone"
        return Answer(job, trouble=f"{ended} without an answer: {self._last_words()}")

    def _found(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self.place / ANSWER).read_text())
        except (OSError, ValueError):
            return {}
        return found

    def _last_words(self) -> str:
        for path in sorted((self.place / "jobs").glob("*log.err")):
            lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            if lines:
                return lines[-1][:200]
        return f"its node does not see {self.place.parent}, or may not write there"

    def _tell(self, job: str, state: JobState) -> None:
        line = f"test job {job}: {state.state.lower()}"
        line += f" on {state.node}" if state.node else f" ({state.reason})" if state.reason else ""
        if line != self._said:
            self._said = line
            self.told(line)

    def _end(self) -> None:
        """Take back whatever bears the job's name, and wait until it is gone: it writes into a folder of ours."""
        start_s = time.monotonic()
        with suppress(SlurmFailed):
            while (waited_s := time.monotonic() - start_s) < ENDING_S:
                alive = [job for job, state in self.cluster.standing([self.name]).items() if not state.ended]
                if not alive:
                    return
                if not self._found() or waited_s > LATE_S:  # with an answer it is on its way out
                    self.cluster.withdraw(alive)
                self.sleep(LOOK_S)
