"""Ray on one node of an allocation, from its start until standard input ends: then nothing of it is left.

    python -m launchers._ray_node       reads one line, a NodeOrder in JSON

Whoever gave the order holds the other end of standard input. When that end is closed, by intent or by a death, Ray
ends on this node, its logs are copied to the study's folder, and its own folder is removed. This file itself needs
neither torch nor ray.
"""

import contextlib
import ctypes
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PORTS_TAKEN = 75  # exit code: another order with other ports may go well
FIRST_PORT, END_PORT = 20000, 32768  # above Ray's own defaults, below where Linux takes ports at random
WIDTH = 256  # ports of one job on each of its nodes
SLOTS = (END_PORT - FIRST_PORT) // WIDTH
GRACE_S = 4.0  # Slurm itself may leave five seconds between asking and killing
TAIL_BYTES = 2**20  # of each log


@dataclass(frozen=True)
class Ports:
    """All ports of one job's Ray, on each of its nodes the same; neighbouring jobs have others.

    Args:
        job: its number.
        attempt: counts from 0; another one gives other ports.
    """

    job: int
    attempt: int = 0

    @property
    def first(self) -> int:
        """Return the first of WIDTH ports."""
        return FIRST_PORT + (self.job + 23 * self.attempt) % SLOTS * WIDTH

    def named(self) -> dict[str, int]:
        """Return option of `ray start` -> port, for every node."""
        names = (
            "node-manager-port",
            "object-manager-port",
            "runtime-env-agent-port",
            "dashboard-agent-grpc-port",
            "dashboard-agent-listen-port",
            "metrics-export-port",
        )
        found = {name: self.first + 2 + number for number, name in enumerate(names)}
        return found | {"min-worker-port": self.first + 10, "max-worker-port": self.first + WIDTH - 1}

    @property
    def head(self) -> int:
        """Return the port of the head's table of nodes, to which all connect."""
        return self.first

    @property
    def client(self) -> int:
        """Return the port of the head's server for Ray clients, which starts where grpc is installed."""
        return self.first + 1


@dataclass(frozen=True)
class NodeOrder:
    """What one node is told.

    Attributes:
        folder: for Ray's sockets and logs and for the token, on the node; made here and removed at the end.
        token: a secret that all processes of this Ray share.
        logs: where Ray's logs are copied in the end.
        head: address of the head; its own or another node's.
        is_head: whether this node is the head.
        job, attempt: see Ports.
        cpus, gpus, memory_bytes, object_store_bytes: what Ray may hand out, never what it would detect.
        variables: environment of all Ray processes of this node.
    """

    folder: str
    token: str
    logs: str
    head: str
    is_head: bool
    job: int
    attempt: int
    cpus: int
    gpus: int
    memory_bytes: int
    object_store_bytes: int
    variables: dict[str, str]

    @property
    def ports(self) -> Ports:
        """Return the ports of this Ray."""
        return Ports(self.job, self.attempt)

    def command(self, address: str, has_client: bool) -> list[str]:
        """Return the command that runs Ray on this node until it is ended.

        Args:
            address: of this node, as the others see it.
            has_client: whether Ray's client server can start; its port may only be named then.
        """
        ports = self.ports
        options = {
            "node-ip-address": address,
            **ports.named(),
            "num-cpus": self.cpus,
            "num-gpus": self.gpus,
            "memory": self.memory_bytes,
            "object-store-memory": self.object_store_bytes,
        }
        if self.is_head:
            options |= {"port": ports.head, "include-dashboard": "false"}
            options |= {"ray-client-server-port": ports.client} if has_client else {}
        else:
            options |= {"address": f"{self.head}:{ports.head}"}
        words = [f"--{name}={value}" for name, value in options.items()]
        role = ["--head"] if self.is_head else []
        return [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats", *role, *words]

    def environment(self) -> dict[str, str]:
        """Return the variables by which Ray finds its folder and its token."""
        return {
            "RAY_TMPDIR": self.folder,
            "TMPDIR": self.folder,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": f"{self.folder}/token",
            **self.variables,
        }


def address_towards(host: str) -> str:
    """Return the address by which this machine reaches a host; no packet is sent.

    A machine's own name often means its loopback interface, which no other machine reaches.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, 9))
        return str(probe.getsockname()[0])


def taken(ports: list[int]) -> int | None:
    """Return a port that somebody listens on already."""
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one that was closed a moment ago is free
            try:
                probe.bind(("", port))
            except OSError:
                return port
    return None


def run(order: NodeOrder, ended: threading.Event) -> int:
    """Run Ray on this node until `ended` is set or Ray ends by itself; return the exit code."""
    ports = order.ports
    wanted = [*ports.named().values(), *([ports.head, ports.client] if order.is_head else [])]
    if (port := taken(wanted)) is not None:
        print(f"port {port} is taken on {socket.gethostname()}", flush=True)
        return PORTS_TAKEN
    with _private_folder(order):
        os.environ.update(order.environment())
        for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN"):  # never join a cluster that this job did not start
            os.environ.pop(name, None)
        command = order.command(address_towards(order.head), importlib.util.find_spec("grpc") is not None)
        with _orphans_adopted():
            others = frozenset(descendants(os.getpid()))
            ray = subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603  no shell; every word is ours
            try:
                while ray.poll() is None and not ended.wait(0.2):
                    pass
                code = ray.poll()
            finally:
                _end(ray, others)
                _copy_logs(order)
    return 0 if code is None else code or 1  # a Ray that ends by itself has failed


@contextlib.contextmanager
def _private_folder(order: NodeOrder) -> Iterator[None]:
    os.mkdir(order.folder, 0o700)  # an error if it exists: nobody else may have made it
    try:
        token = f"{order.folder}/token"
        with os.fdopen(os.open(token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(order.token)
        yield
    finally:
        shutil.rmtree(order.folder, ignore_errors=True)


@contextlib.contextmanager
def _orphans_adopted() -> Iterator[None]:
    """Be the parent of every process below whose own parent dies, so that none is lost from sight.

    No longer than that: a process that adopts and does not wait keeps the dead as zombies, which Ray takes for alive.
    """
    _set_subreaper(1)
    try:
        yield
    finally:
        _set_subreaper(0)


def _set_subreaper(value: int) -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(36, value, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def _end(ray: subprocess.Popen[bytes], others: frozenset[int]) -> None:
    """End Ray and all that it started, but no other process below this one: asked first, then killed."""
    ray.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        ray.wait(GRACE_S)
    deadline_s = time.monotonic() + GRACE_S
    while left := set(descendants(os.getpid())) - others:
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        ray.poll()
        for pid in left - {ray.pid}:  # those that became children of this process; others are no concern of it
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        if time.monotonic() > deadline_s:  # in the midst of a write to a disk that does not answer, say
            print(f"processes {sorted(left)} do not end", flush=True)
            return
        time.sleep(0.05)


def descendants(ancestor: int) -> list[int]:
    """Return the processes that an ancestor, or one of its descendants, is the parent of."""
    parents: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
                parents[int(entry)] = int(fields[1])
    found = {ancestor}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found - {ancestor})


def _copy_logs(order: NodeOrder) -> None:
    """Copy the end of every log that is not empty; a shared folder that takes no more files is no reason to fail."""
    with contextlib.suppress(OSError):
        for path in sorted(Path(order.folder).glob("ray/session_2*/logs/**/*")):
            if path.is_symlink() or not path.is_file() or not path.stat().st_size:
                continue
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - TAIL_BYTES))
                content = file.read()
            target = Path(order.logs) / path.relative_to(next(each for each in path.parents if each.name == "logs"))
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)


def main() -> int:
    """Read the order, and run Ray until standard input ends."""
    ended = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(name, lambda *_: ended.set())
    for name in (signal.SIGUSR1, signal.SIGUSR2):  # what Slurm warns a job with; children inherit that it is ignored
        signal.signal(name, signal.SIG_IGN)
    order = NodeOrder(**json.loads(sys.stdin.readline()))
    threading.Thread(target=_wait_for_end, args=(ended,), daemon=True).start()
    return run(order, ended)


def _wait_for_end(ended: threading.Event) -> None:
    sys.stdin.read()
    ended.set()


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # the thread that waits for standard input may still hold it
