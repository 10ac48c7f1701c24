"""A real Slurm of two nodes on this machine, brought up for the tests, and what can befall it."""

import functools
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from launchers import inline
from suite.store import Store
from tests.slurm.machine import DEVCLUSTER, configuration_of, devcluster, disk, is_up, owned, remove_disks
from tests.slurm.studies import plan_of

PATIENCE_S = 60  # a bound for a busy machine, never a measurement
SETTLE_S = 15  # a node that lost its power is back sooner
NUM_NODES = 2


class Cluster:
    """The running cluster. Slurm's own commands reach it from this process and its children as well.

    Attributes:
        configuration: the file that SLURM_CONF names.
        folder: a folder that this machine and all nodes see; below /tmp, unless the cluster was up before the tests.
        small: a file system of one MiB that all of them see, or None where there is none.
    """

    def __init__(self, configuration: Path, folder: Path, small: Path | None = None) -> None:
        self.configuration, self.folder, self.small = configuration, folder, small
        self._harmed = False

    def kill(self, node: int) -> None:
        """Let a node lose its power."""
        self._control("kill", str(node))

    def start(self, node: int) -> None:
        """Give a node its power back; return as soon as it is on its way up."""
        self._control("start", str(node))

    def pause_controller(self) -> None:
        """Let slurmctld stand still: sbatch, squeue and scontrol wait ten seconds and fail."""
        self._control("pause", "slurmctld")

    def resume_controller(self) -> None:
        self._control("resume", "slurmctld")

    def stop_accounting(self) -> None:
        """Stop slurmdbd: sacct fails at once, everything else goes on."""
        self._control("kill", "slurmdbd")

    def start_accounting(self) -> None:
        self._control("start", "slurmdbd")

    def repair(self) -> None:
        """End all jobs and undo whatever a test did to the cluster."""
        if self._harmed:
            self._control("up", str(NUM_NODES))
            self._harmed = False
        if self.queue():
            self._run("scancel", "--user=root")
        if not _becomes(self._is_idle, SETTLE_S):
            self._restart_nodes()
            assert _becomes(self._is_idle, PATIENCE_S), f"the cluster stays {self.nodes()} with {self.queue()}"

    def _is_idle(self) -> bool:
        return not self.queue() and set(self.nodes().values()) == {"idle"}

    def _restart_nodes(self) -> None:
        """Give the nodes that are not idle a new start.

        A step that ends while the controller stands still reports so again after a minute. Until then its node is
        completing, and then it is drained, because its job did not end.
        """
        for name in [name for name, state in self.nodes().items() if state != "idle"]:
            self.kill(int(name.removeprefix("n")))
            self._run("scontrol", "update", f"nodename={name}", "state=down", "reason=restarted")
            self.start(int(name.removeprefix("n")))
            self._run("scontrol", "update", f"nodename={name}", "state=resume")
        self._harmed = False

    def nodes(self) -> dict[str, str]:
        """Return the state of every node by its name."""
        lines = self._run("sinfo", "--noheader", "--Node", "--partition=batch", "--format=%N %t").splitlines()
        return dict(line.split() for line in lines)

    def sbatch(self, command: str, *options: str) -> subprocess.CompletedProcess[str]:
        """Submit a shell command as a job whose output goes to OUTPUT-JOB.txt in the shared folder."""
        where = ("--parsable", f"--chdir={self.folder}", "--output=output-%j.txt", "--open-mode=append")
        return subprocess.run(
            ["sbatch", *where, *options, f"--wrap={command}"], capture_output=True, text=True, check=False
        )

    def submit(self, command: str, *options: str) -> str:
        """Submit a shell command; return the job's id."""
        submitted = self.sbatch(command, *options)
        assert submitted.returncode == 0, submitted.stderr
        return submitted.stdout.strip()

    def requeue(self, job: str) -> None:
        """Stop a running job and put it into the queue again, where it is held for ten seconds."""
        self._run("scontrol", "requeue", job)

    def cancel(self, job: str) -> None:
        """Cancel a job or one element of an array."""
        self._run("scancel", job)

    def warn(self, job: str) -> None:
        """Send an element the signal by which Slurm warns it of its time limit or of a preemption."""
        self._run("scancel", "--signal=USR2", job)

    def queue(self) -> list[str]:
        """Return a line for each job that waits or runs."""
        return self._run("squeue", "--noheader").splitlines()

    def history(self, job: str) -> list[str]:
        """Return the states of all attempts at a job, the latest last, as the accounting has them; it may be busy."""
        words = ("--duplicates", "--allocations", "--noheader", "--parsable2", "--format=State", f"--jobs={job}")
        found: list[str] = []

        def is_told() -> bool:
            asked = subprocess.run(["sacct", *words], capture_output=True, text=True, check=False, timeout=PATIENCE_S)
            found[:] = [asked.stdout.strip() if asked.returncode == 0 else asked.stderr]
            return asked.returncode == 0

        assert _becomes(is_told, PATIENCE_S), f"sacct does not answer: {found[0]}"
        return found[0].split("\n")

    def wait_for(self, job: str, state: str, attempt: int = 1) -> list[str]:
        """Wait until an attempt at a job is in a state; return the job's history."""
        reached = _becomes(lambda: self.history(job)[attempt - 1 : attempt] == [state], PATIENCE_S)
        assert reached, f"{job} is never {state}: {self.history(job)}"
        return self.history(job)

    def output(self, job: str) -> str:
        """Return what a job has written so far."""
        path = self.folder / f"output-{job}.txt"
        return path.read_text() if path.exists() else ""

    def _control(self, *words: str) -> None:
        self._harmed = True
        done = devcluster(*words)
        assert done.returncode == 0, done.stderr

    def _run(self, *command: str) -> str:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE_S).stdout.strip()


def _becomes(reached: Callable[[], bool], within_s: float) -> bool:
    deadline_s = time.monotonic() + within_s
    while not reached():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.2)
    return True


@functools.cache
def _refusal() -> str:
    return devcluster("check").stderr.strip()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs the cluster where none can be. Not in the fixture, that all of them make one line."""
    if "cluster" in getattr(item, "fixturenames", ()) and _refusal():
        pytest.skip(f"no Slurm to test on. {_refusal()}")


@pytest.fixture(scope="session", name="devcluster")
def devcluster_command() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return the function that runs slurm/devcluster with words and environment variables."""
    return devcluster


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster of two nodes. What was up before is used and left up; what was not is taken down at the end."""
    was_up = is_up()
    remove_disks()
    folder = tmp_path_factory.mktemp("shared")
    with ExitStack() as until_the_end, pytest.MonkeyPatch.context() as patch:
        small = None if was_up else until_the_end.enter_context(disk("size=1m"))
        shared = {} if was_up else {"DEVCLUSTER_SHARE": f"{folder}:{small}:{sys.prefix}:{sys.base_prefix}"}
        started = devcluster("up", str(NUM_NODES), **shared)
        assert started.returncode == 0, started.stderr
        configuration = configuration_of(started)
        if was_up:
            folder = Path(tempfile.mkdtemp(dir=configuration.with_name("shared")))
        else:
            until_the_end.callback(devcluster, "down")
            until_the_end.enter_context(owned(configuration))
        patch.setenv("SLURM_CONF", str(configuration))
        patch.setenv("PYTHONPATH", str(DEVCLUSTER.parents[1]))
        yield Cluster(configuration, folder, small)


@pytest.fixture(scope="session")
def study(cluster: Cluster, tiny_data: Path, write_tiny_study: Callable[[Path], Path]) -> Path:
    """The file of the tiny study, with its data beside it where all nodes see them."""
    folder = cluster.folder / "studies"
    folder.mkdir()
    path = write_tiny_study(folder)
    shutil.copy(tiny_data, folder)
    task = folder / "task.toml"
    task.write_text(task.read_text().replace(str(tiny_data), tiny_data.name))
    return path


@pytest.fixture
def out(cluster: Cluster, tmp_path: Path) -> Path:
    """The folder of a study, not there yet, that all nodes will see."""
    return cluster.folder / tmp_path.name


@pytest.fixture(scope="session")
def settings() -> Callable[[tuple[str, ...]], list[str]]:
    """Return the words of a command line that make the tiny study another one."""
    return lambda settings: [word for setting in settings for word in ("--set", setting)]


@pytest.fixture(scope="session")
def reference(
    study: Path, science: Callable[[Path], dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[tuple[str, ...]], dict[str, Any]]:
    """Return what one process finds in a study with these settings; computed once."""

    @functools.cache
    def found(settings: tuple[str, ...]) -> dict[str, Any]:
        folder = tmp_path_factory.mktemp("reference")
        Store(folder).prepare()
        outcomes = inline.run(plan_of(study, settings), folder, workers=1, report=lambda _: None)
        assert {outcome.status for outcome in outcomes} == {"done"}
        return science(folder)

    return found


@pytest.fixture(autouse=True)
def repaired(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test that used the cluster, whatever it did, leave an idle one to the next."""
    yield
    if "cluster" in request.fixturenames:
        request.getfixturevalue("cluster").repair()
