"""What one node of a job's Ray is told and does, without Slurm."""

import ctypes
import dataclasses
import os
import socket
import sys
import threading
from pathlib import Path

import pytest

from launchers import _ray_node
from launchers._ray_node import (
    END_PORT,
    FIRST_PORT,
    PORTS_TAKEN,
    SLOTS,
    WIDTH,
    NodeOrder,
    Ports,
    address_towards,
    descendants,
    taken,
)

ORDER = NodeOrder(
    folder="/tmp/esp-12-abcdef",
    token="secret",
    logs="/study/ray/12/n1",
    head="10.0.0.1",
    is_head=True,
    job=12,
    attempt=0,
    cpus=4,
    gpus=2,
    memory_bytes=3000,
    object_store_bytes=1000,
    variables={"OMP_NUM_THREADS": "1"},
)


def options(order: NodeOrder, has_client: bool = False) -> dict[str, str]:
    words = order.command("10.0.0.7", has_client)
    return dict(word.removeprefix("--").partition("=")[::2] for word in words[words.index("start") + 1 :])


def all_ports(ports: Ports) -> list[int]:
    named = ports.named()
    workers = range(named.pop("min-worker-port"), named.pop("max-worker-port") + 1)
    return [ports.head, ports.client, *named.values(), *workers]


@pytest.mark.parametrize("job", [1, 12, 998, 4294967295])
@pytest.mark.parametrize("attempt", [0, 1, 2])
def test_all_ports_of_a_job_are_different_and_in_its_range(job: int, attempt: int) -> None:
    ports = Ports(job, attempt)
    found = all_ports(ports)
    assert len(set(found)) == len(found) > 200
    assert FIRST_PORT <= ports.first <= min(found) <= max(found) < ports.first + WIDTH <= END_PORT


def test_neighbouring_jobs_and_later_attempts_share_no_port() -> None:
    firsts = [Ports(job).first for job in range(100, 100 + SLOTS)]
    assert len(set(firsts)) == SLOTS
    assert len({Ports(100, attempt).first for attempt in range(3)}) == 3


def test_the_head_names_all_ports_and_all_that_may_be_handed_out() -> None:
    found = options(ORDER, has_client=True)
    ports = ORDER.ports
    assert found["port"] == str(ports.head)
    assert found["ray-client-server-port"] == str(ports.client)
    assert {name: int(found[name]) for name in ports.named()} == ports.named()
    assert (found["num-cpus"], found["num-gpus"]) == ("4", "2")
    assert (found["memory"], found["object-store-memory"]) == ("3000", "1000")
    assert (found["include-dashboard"], found["node-ip-address"]) == ("false", "10.0.0.7")
    assert {"head", "block", "disable-usage-stats"} <= set(found)
    assert "address" not in found
    assert "ray-client-server-port" not in options(ORDER)  # Ray refuses it where its client is not installed


def test_another_node_joins_the_head() -> None:
    found = options(dataclasses.replace(ORDER, is_head=False), has_client=True)
    assert found["address"] == f"10.0.0.1:{ORDER.ports.head}"
    assert not {"head", "port", "include-dashboard", "ray-client-server-port"} & set(found)


def test_no_secret_is_on_a_command_line_and_every_process_asks_for_the_token() -> None:
    assert "secret" not in " ".join(ORDER.command("10.0.0.7", True))
    variables = ORDER.environment()
    assert "secret" not in variables.values()
    assert variables["RAY_AUTH_MODE"] == "token"
    assert variables["RAY_AUTH_TOKEN_PATH"] == "/tmp/esp-12-abcdef/token"
    assert variables["OMP_NUM_THREADS"] == "1"


def test_a_port_that_somebody_listens_on_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    order = dataclasses.replace(ORDER, folder=str(tmp_path / "esp"), job=os.getpid())
    with socket.socket() as other:
        other.bind(("", order.ports.named()["object-manager-port"]))
        other.listen()
        port = other.getsockname()[1]
        assert taken([port]) == port
        assert _ray_node.run(order, threading.Event()) == PORTS_TAKEN
    assert f"port {port} is taken on " in capsys.readouterr().out
    assert not Path(order.folder).exists()


def test_the_way_to_this_machine_is_the_loopback() -> None:
    assert address_towards("127.0.0.1") == "127.0.0.1"


STAND_IN = "import subprocess, sys, time; subprocess.Popen(['sleep', '97.3'], start_new_session=True); {then}"


def run_stand_in(then: str, order: NodeOrder, monkeypatch: pytest.MonkeyPatch, ended: threading.Event) -> int:
    """Run an order with a stand-in for Ray, which leaves a process in a session of its own."""
    words = [sys.executable, "-c", STAND_IN.format(then=then)]
    monkeypatch.setattr(NodeOrder, "command", lambda *_: words)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setattr(_ray_node, "GRACE_S", 1.0)
    code = _ray_node.run(order, ended)
    adopts = ctypes.c_int(-1)
    ctypes.CDLL(None).prctl(37, ctypes.byref(adopts), 0, 0, 0)  # PR_GET_CHILD_SUBREAPER
    assert adopts.value == 0
    return code


def left() -> list[int]:
    """Return the processes that the stand-in left."""
    commands = {pid: Path(f"/proc/{pid}/cmdline") for pid in descendants(os.getpid())}
    return [pid for pid, path in commands.items() if path.exists() and b"sleep\x0097.3" in path.read_bytes()]


@pytest.fixture
def order(tmp_path: Path) -> NodeOrder:
    logs = tmp_path / "logs"
    return dataclasses.replace(
        ORDER, folder=str(tmp_path / "esp"), logs=str(logs), head="127.0.0.1", is_head=False, job=os.getpid()
    )


def test_when_it_is_told_to_end_nothing_is_left_but_the_logs(order: NodeOrder, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    session = Path(order.folder) / "ray" / "session_2026" / "logs"

    def end_soon() -> None:
        while not left():
            pass
        assert oct((Path(order.folder) / "token").stat().st_mode)[-3:] == "600"
        assert oct(Path(order.folder).stat().st_mode)[-3:] == "700"
        (session / "old").mkdir(parents=True)
        (session / "raylet.err").write_text("why it failed\n")
        (session / "old" / "worker.out").write_text("x" * (2**20 + 7))
        (session / "empty.log").touch()
        ended.set()

    teller = threading.Thread(target=end_soon)
    teller.start()
    assert run_stand_in("time.sleep(60)", order, monkeypatch, ended) == 0
    teller.join()
    assert not left()
    assert not Path(order.folder).exists()
    kept = {str(path.relative_to(order.logs)): path.stat().st_size for path in Path(order.logs).rglob("*.*")}
    assert kept == {"raylet.err": 14, "old/worker.out": 2**20}


@pytest.mark.parametrize(("then", "code"), [("sys.exit(3)", 3), ("sys.exit(0)", 1)])
def test_a_ray_that_ends_by_itself_has_failed_and_takes_all_with_it(
    then: str, code: int, order: NodeOrder, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_stand_in(then, order, monkeypatch, threading.Event()) == code
    assert not left()
    assert not Path(order.folder).exists()
