"""A Ray of a job's own on all nodes of its Slurm allocation: one step of srun on each, and nothing left at the end.

Each step runs launchers/_ray_node.py, which lives as long as the pipe to its standard input: closing it here, or the
death of this process, ends Ray there. `ray stop` is not used: it would end the Ray of other jobs on the same node.
"""

import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from launchers._allocation import Allocation
from launchers._ray_node import PORTS_TAKEN, NodeOrder, Ports, address_towards
from launchers._ray_session import OBJECT_STORE_BYTES, SETTINGS, SOCKET_ROOT_LIMIT, connected, new_token

PATIENCE_S = 600.0  # from the first step to the last node; Python from a busy network disk takes minutes
TELL_S = 10.0  # between two lines of progress
END_S = 30.0  # for Ray to end and its logs to be copied, before srun is asked to kill
MAX_ATTEMPTS = 3  # with other ports
ROOT = Path(__file__).parents[1]
# What srun would take for options of its own, what belongs to another Ray, and a folder that Slurm would make anew on
# each node.
NOT_INHERITED = ("SLURM_", "SLURMD_", "SRUN_", "SBATCH_", "RAY_", "TMPDIR")


class RayFailed(RuntimeError):
    """Ray did not come up on the nodes of this job; one line that says why."""


class _PortsTaken(RayFailed):
    """Other ports may do."""


@contextmanager
def ray_cluster(
    given: Allocation,
    logs: Path,
    tell: Callable[[str], None],
    *,
    scratch: str | None = None,
    variables: dict[str, str] | None = None,
    patience_s: float = PATIENCE_S,
) -> Iterator[Any]:
    """Start Ray on all nodes of the allocation that this process runs in, connect, yield the ray module, end all of it.

    Args:
        given: the allocation; the head is on its first node, which has to be this one.
        logs: a folder that all nodes see, made here: n1.txt is what the step on n1 said, n1/ holds the logs of its Ray.
        tell: called with a line when something came about, and every TELL_S while nothing does.
        scratch: a folder that each node has of its own, for Ray's files; by default, and where it is too long for the
            path of a socket, /tmp.
        variables: for the environment of all workers.
        patience_s: until all nodes are alive.

    Raises:
        RayFailed: a step could not be started, or ended, or not all nodes were alive in time.
        UserError: ray is not installed.
    """
    for attempt in range(MAX_ATTEMPTS):
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="espalier-ray-")))  # mode 0700
            token = new_token(folder)
            starting = _Cluster(given, logs, tell, _node_folder(given, scratch), token, attempt, variables or {})
            stack.callback(starting.close)
            try:
                ray = starting.bring_up(stack, patience_s)
            except _PortsTaken as error:
                tell(str(error))
                if attempt == MAX_ATTEMPTS - 1:
                    raise
                continue
            yield ray
            return


@dataclass
class _Step:
    host: str
    process: subprocess.Popen[bytes]
    log: Path


@dataclass
class _Cluster:
    """The steps of one attempt."""

    given: Allocation
    logs: Path
    tell: Callable[[str], None]
    node_folder: str
    token: Path
    attempt: int
    variables: dict[str, str] = field(default_factory=dict)
    steps: list[_Step] = field(default_factory=list)

    def __post_init__(self) -> None:
        hosts = self.given.hosts
        self.head = address_towards(hosts[1]) if len(hosts) > 1 else "127.0.0.1"
        self.ports = Ports(self.given.number, self.attempt)
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        self.variables = SETTINGS | {"PYTHONPATH": path} | self.variables

    def bring_up(self, stack: ExitStack, patience_s: float) -> Any:
        """Start the head, then the other nodes; return the connected ray module when all are alive."""
        self.begun_s = self.told_s = time.monotonic()
        self.deadline_s = self.begun_s + patience_s
        first, *others = self.given.hosts
        self.logs.mkdir(parents=True, exist_ok=True)
        self.tell(f"Ray begins on {first}, ports {self.ports.first} and above")
        self._start(first)
        while not all(self._answers(port) for port in (self.ports.head, self.ports.named()["node-manager-port"])):
            self._pause(f"its head on {first} does not answer yet")
        for host in others:
            self._start(host)
        address = f"{self.head}:{self.ports.head}"
        try:
            ray = stack.enter_context(
                connected(
                    self.token, address=address, _node_ip_address=self.head, namespace=Path(self.node_folder).name
                )
            )
        except (OSError, RuntimeError) as error:
            self._check_steps()
            raise RayFailed(f"Ray's head on {first} cannot be used: {_first_line(error)}. See {self.logs}.") from error
        while (alive := sum(node["Alive"] for node in ray.nodes())) < len(self.given.hosts):
            self._pause(f"{alive} of {len(self.given.hosts)} nodes are alive")
        self.tell(f"Ray is up on {', '.join(self.given.hosts)} after {time.monotonic() - self.begun_s:.1f} s")
        return ray

    def close(self) -> None:
        """End Ray on all nodes and wait for it."""
        for step in self.steps:
            with suppress(OSError):  # it may have ended by itself
                step.process.stdin.close()  # type: ignore[union-attr]
        deadline_s = time.monotonic() + END_S
        for step in self.steps:
            for action in (None, step.process.terminate, step.process.kill):
                if action is not None:
                    self.tell(f"Ray on {step.host} does not end; srun is told to {action.__name__} it")
                    action()
                    deadline_s = max(deadline_s, time.monotonic() + END_S / 3)
                with suppress(subprocess.TimeoutExpired):
                    step.process.wait(max(0.0, deadline_s - time.monotonic()))
                    break

    def _start(self, host: str) -> None:
        """Start the step of one host.

        Raises:
            RayFailed: there is no srun.
        """
        log = self.logs / f"{host}.txt"
        environment = {name: value for name, value in os.environ.items() if not name.startswith(NOT_INHERITED)}
        environment |= {name: os.environ[name] for name in ("SLURM_CONF",) if name in os.environ} | self.variables
        with log.open("ab") as output:
            try:
                process = subprocess.Popen(  # noqa: S603  no shell; every word is ours or Slurm's
                    step_command(self.given, host),
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=environment,
                )
            except OSError as error:
                raise RayFailed(
                    f"srun cannot be started on {self.given.hosts[0]}: {error.strerror}. Expected: on the PATH of the "
                    "job, as outside of containers."
                ) from error
        self.steps.append(_Step(host, process, log))
        with suppress(OSError):  # an srun that has ended is found by the next look
            process.stdin.write(f"{json.dumps(asdict(self._order(host)))}\n".encode())  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]

    def _order(self, host: str) -> NodeOrder:
        return NodeOrder(
            folder=self.node_folder,
            token=self.token.read_text(),
            logs=str(self.logs / host),
            head=self.head,
            is_head=host == self.given.hosts[0],
            job=self.given.number,
            attempt=self.attempt,
            cpus=self.given.cpus,
            gpus=self.given.gpus,
            memory_bytes=max(OBJECT_STORE_BYTES, self.given.memory_bytes - OBJECT_STORE_BYTES),
            object_store_bytes=OBJECT_STORE_BYTES,
            variables=self.variables,
        )

    def _answers(self, port: int) -> bool:
        try:
            with socket.create_connection((self.head, port), timeout=1):
                return True
        except OSError:
            return False

    def _pause(self, state: str) -> None:
        """Wait a moment; tell the state now and then.

        Raises:
            RayFailed: a step has ended, or it takes too long.
        """
        self._check_steps()
        now_s = time.monotonic()
        if now_s > self.deadline_s:
            waited_s = now_s - self.begun_s
            last = "; ".join(f"{step.host}: {last_words(step.log) or 'nothing'}" for step in self.steps)
            raise RayFailed(f"Ray is not up after {waited_s:.0f} s: {state}. Last words: {last}. See {self.logs}.")
        if now_s - self.told_s > TELL_S:
            self.told_s = now_s
            self.tell(f"Ray after {now_s - self.begun_s:.0f} s: {state}")
        time.sleep(0.1)

    def _check_steps(self) -> None:
        for step in self.steps:
            code = step.process.poll()
            if code is not None:
                kind = _PortsTaken if code == PORTS_TAKEN else RayFailed
                said = last_words(step.log) or "it said nothing"
                raise kind(f"Ray on {step.host} ended with exit code {code}: {said}. See {step.log}.")


def step_command(given: Allocation, host: str) -> list[str]:
    """Return the command that runs one node's Ray as a step of this job, beside the step that this process is in."""
    return [
        "srun",
        f"--jobid={given.number}",
        "--overlap",
        "--nodes=1",
        "--ntasks=1",
        f"--nodelist={host}",
        f"--cpus-per-task={given.cpus}",
        "--mem=0",  # all that the job has
        "--unbuffered",
        sys.executable,
        "-m",
        "launchers._ray_node",
    ]


def last_words(log: Path) -> str:
    """Return the last line of a log that speaks of something wrong, else its last line."""
    with suppress(OSError):
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
        lines = [line for line in lines if not line.startswith("srun:")] or lines  # it only counts
        wrong = [line for line in lines if any(word in line.lower() for word in ("error", "fail", "taken", "refused"))]
        return (wrong or lines or [""])[-1][:300].rstrip(".")
    return ""


def _node_folder(given: Allocation, scratch: str | None) -> str:
    name = f"esp-{given.number}-{secrets.token_hex(3)}"
    root = scratch or "/tmp"  # noqa: S108  a new folder of mode 0700 in it
    # 6 for the random part, 10 for the number of a job: what the session of a single machine appends is as long.
    return f"{root if len(root) + len(name) <= SOCKET_ROOT_LIMIT + 15 else '/tmp'}/{name}"  # noqa: S108


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300].rstrip(".")
