"""The test cluster is a cluster: several hosts, GPUs that are counted, and what goes wrong on a real one."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.slurm.machine import is_up, remove_disks

pytestmark = pytest.mark.slurm


def lines(*command: str) -> list[str]:
    """Return the sorted lines that a command prints; a job step's are labelled with its rank."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return sorted(re.sub(r"^\d+: ", "", line) for line in done.stdout.splitlines())


def on_both(script: str) -> list[str]:
    return lines("srun", "--nodes=2", "--label", "bash", "-c", script)


def test_two_nodes_have_names_and_addresses_of_their_own(cluster: Any) -> None:
    assert cluster.nodes() == {"n1": "idle", "n2": "idle"}
    told = on_both("echo $(hostname) $(getent hosts n1 n2 ctl | cut -d' ' -f1)")
    own = on_both("echo $(hostname) $(hostname -I)")
    net = own[0].split()[1].rpartition(".")[0]
    assert own == [f"n1 {net}.11", f"n2 {net}.12"]
    assert told == [f"n1 {net}.11 {net}.12 {net}.1", f"n2 {net}.11 {net}.12 {net}.1"]


def test_nodes_see_each_other_and_nothing_beyond(cluster: Any) -> None:
    seen = "for host in n1/6818 n2/6818 ctl/6817; do true >/dev/tcp/$host && echo $host; done"
    assert on_both(seen) == ["ctl/6817", "ctl/6817", "n1/6818", "n1/6818", "n2/6818", "n2/6818"]
    assert on_both("(true >/dev/tcp/192.0.2.1/53) 2>&1 | grep -q unreachable && echo none") == ["none", "none"]


@pytest.mark.parametrize("private", ["/tmp", "/dev/shm"])
def test_each_node_has_its_own(cluster: Any, private: str) -> None:
    name = f"{private}/espalier-{os.getpid()}"
    on_both(f"hostname >{name}")
    assert on_both(f"cat {name}; rm {name}") == ["n1", "n2"]
    assert not Path(name).exists()


def test_a_node_does_not_see_the_processes_of_another(cluster: Any) -> None:
    cluster.wait_for(cluster.submit("sleep 98.7", "--nodelist=n1"), "RUNNING")
    seen = "pgrep --full --count '^sleep 98.7' || true"
    assert lines("srun", "--nodelist=n1", "bash", "-c", seen) == ["1"]
    assert lines("srun", "--nodelist=n2", "bash", "-c", seen) == ["0"]


def test_both_nodes_and_this_machine_see_a_shared_folder(cluster: Any) -> None:
    on_both(f"hostname >{cluster.folder}/$(hostname)")
    assert [(cluster.folder / name).read_text() for name in ("n1", "n2")] == ["n1\n", "n2\n"]
    assert on_both(f"cat {cluster.folder}/n1") == ["n1", "n1"]


def test_the_checkout_and_its_python_are_seen_by_a_node(cluster: Any) -> None:
    root = Path(__file__).parents[2]
    code = "import sys, suite.study; print(sys.prefix, suite.study.__file__)"
    found = lines("srun", f"--chdir={root}", f"--export=ALL,PYTHONPATH={root}", sys.executable, "-c", code)
    assert found == [f"{sys.prefix} {root}/suite/study.py"]


def test_gpus_are_counted_and_handed_out(cluster: Any) -> None:
    show = "srun bash -c 'echo $(hostname) $CUDA_VISIBLE_DEVICES $SLURM_JOB_GPUS'"
    both = cluster.submit(show, "--nodes=2", "--gres=gpu:2")
    cluster.wait_for(both, "COMPLETED")
    assert sorted(cluster.output(both).splitlines()) == ["n1 0,1 0,1", "n2 0,1 0,1"]


def test_jobs_on_one_node_share_no_gpu(cluster: Any) -> None:
    job = cluster.submit("echo $CUDA_VISIBLE_DEVICES $SLURM_JOB_GPUS; sleep 100", "--gres=gpu:1", "--nodelist=n1")
    cluster.wait_for(job, "RUNNING")
    show = "echo $CUDA_VISIBLE_DEVICES"
    assert lines("srun", "--gres=gpu:1", "--nodelist=n1", "bash", "-c", show) == ["1"]
    assert cluster.output(job) == "0 0\n"


def test_a_job_without_an_account_runs_under_the_default(cluster: Any) -> None:
    job = cluster.submit("echo $SLURM_JOB_ACCOUNT $SLURM_JOB_PARTITION")
    assert cluster.wait_for(job, "COMPLETED") == ["COMPLETED"]
    assert cluster.output(job) == "test batch\n"


REFUSALS = {
    "--partition=nowhere": "Invalid partition name specified",
    "--account=nobody": "Invalid account or account/partition combination specified",
    "--qos=none": "Invalid qos specification",
    "--array=0-101": "Invalid job array specification",
    "--array=101": "Invalid job array specification",
    "--gres=gpu:3": "Requested node configuration is not available",
    "--mem=90G": "Requested node configuration is not available",
    "--nodelist=n7": "Invalid node name specified",
    "--constraint=fast": "Invalid feature specification",
    "--gres=tpu:1": "Invalid generic resource (gres) specification",
}


@pytest.mark.parametrize("option", REFUSALS)
def test_what_cannot_be_is_refused_and_not_queued(cluster: Any, option: str) -> None:
    refused = cluster.sbatch("true", option)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.splitlines()[-1].removeprefix("sbatch: error: ").endswith(REFUSALS[option])
    assert lines("squeue", "--noheader") == []


def test_the_documentation_has_every_refusal() -> None:
    page = (Path(__file__).parents[2] / "docs" / "slurm.md").read_text()
    assert [message for message in REFUSALS.values() if message not in page] == []


def test_the_largest_array_is_accepted(cluster: Any) -> None:
    job = cluster.submit("true", "--array=0-100", "--hold")
    assert lines("squeue", "--noheader", "--array", f"--jobs={job}", "--format=%i") == sorted(
        f"{job}_{index}" for index in range(101)
    )


def test_a_requeued_job_begins_again(cluster: Any) -> None:
    job = cluster.submit("echo attempt $SLURM_RESTART_COUNT; test $SLURM_RESTART_COUNT || sleep 99")
    cluster.wait_for(job, "RUNNING")
    cluster.requeue(job)
    assert cluster.wait_for(job, "COMPLETED", attempt=2) == ["REQUEUED", "COMPLETED"]
    assert cluster.output(job).splitlines()[-1] == "attempt 1"


def test_a_higher_partition_takes_the_place_of_a_job_that_begins_again(cluster: Any) -> None:
    script = (
        'trap "echo warned" USR1; echo attempt $SLURM_RESTART_COUNT; test $SLURM_RESTART_COUNT || sleep 99 & wait; wait'
    )
    low = cluster.submit(script, "--nodes=2", "--exclusive", "--signal=B:USR1@30")
    cluster.wait_for(low, "RUNNING")
    high = cluster.submit("true", "--partition=urgent", "--gres=gpu:2")
    cluster.wait_for(high, "COMPLETED")
    assert cluster.wait_for(low, "COMPLETED", attempt=2) == ["PREEMPTED", "COMPLETED"]
    assert cluster.output(low).splitlines()[:2] == ["attempt", "warned"]
    assert cluster.output(low).splitlines()[-1] == "attempt 1"


def test_the_job_of_a_killed_node_begins_again_elsewhere(cluster: Any) -> None:
    script = "echo attempt $SLURM_RESTART_COUNT on $(hostname); test $SLURM_RESTART_COUNT || sleep 99"
    cluster.submit("sleep 100", "--nodelist=n1", "--exclusive", "--job-name=elsewhere")
    job = cluster.submit(script)
    cluster.wait_for(job, "RUNNING")
    lines("scancel", "--name=elsewhere")
    cluster.kill(2)
    assert cluster.wait_for(job, "COMPLETED", attempt=2) == ["NODE_FAIL", "COMPLETED"]
    assert cluster.nodes()["n2"] == "down*"
    assert cluster.output(job) == "attempt on n2\nattempt 1 on n1\n"
    cluster.start(2)
    assert lines("srun", "--nodelist=n2", "hostname") == ["n2"]


def test_a_standing_controller_answers_nobody_and_then_goes_on(cluster: Any) -> None:
    cluster.pause_controller()
    asked = subprocess.run(["squeue"], capture_output=True, text=True, check=False, timeout=60)
    assert (asked.returncode, asked.stderr.strip()) == (
        1,
        "slurm_load_jobs error: Socket timed out on send/recv operation",
    )
    cluster.resume_controller()
    assert lines("srun", "--nodelist=n1", "hostname") == ["n1"]


def test_without_accounting_sacct_fails_and_jobs_go_on(cluster: Any) -> None:
    cluster.stop_accounting()
    asked = subprocess.run(["sacct"], capture_output=True, text=True, check=False, timeout=60)
    assert asked.returncode == 1
    assert "sacct: error: Problem talking to the database: Connection refused" in asked.stderr
    job = cluster.submit("true")
    assert lines("srun", "--nodelist=n1", "hostname") == ["n1"]
    cluster.start_accounting()
    assert cluster.wait_for(job, "COMPLETED") == ["COMPLETED"]


def test_what_is_up_is_left_alone(cluster: Any, devcluster: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    pids = cluster.configuration.with_name("pids")
    before = {path.name: path.read_text() for path in pids.iterdir()}
    assert devcluster("up", "2").returncode == 0
    assert {path.name: path.read_text() for path in pids.iterdir()} == before
    more = devcluster("up", "3")
    assert (more.returncode, more.stderr) == (
        2,
        "devcluster: The cluster is up with 2 nodes. Expected: 3. Run: devcluster down.\n",
    )


def test_what_a_killed_run_has_left_is_removed_without_a_trace(
    cluster: Any, devcluster: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    state = Path(tempfile.gettempdir()) / "espalier-devcluster"  # the same each time: this run may be killed as well
    variables = {"DEVCLUSTER_NET": "10.78.99", "DEVCLUSTER_STATE": str(state)}
    devcluster("down", **variables)
    code = f"""
from signal import pause
from tests.slurm.machine import configuration_of, devcluster, disk, is_up, owned
with disk("size=1m") as folder, owned(configuration_of(devcluster("up", "1", **{variables}))):
    print(folder, flush=True)
    pause()
"""
    try:
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as run:
            try:
                assert run.stdout is not None
                folder = run.stdout.readline().strip()
                remove_disks()
                with pytest.raises(BlockingIOError):
                    is_up(**variables)
                assert "10.78.99" in traces()
                assert folder in traces()
            finally:
                run.kill()
        assert not is_up(**variables)
        remove_disks()
    finally:
        devcluster("down", **variables)
    assert not state.exists()
    assert not Path(folder).exists()
    for trace in ("10.78.99", str(state), folder):
        assert trace not in traces()


def traces() -> str:
    """Return all interfaces, addresses, network namespaces, mounts, host names and command lines of this machine."""
    read = ["/proc/mounts", "/etc/hosts"]
    asked = [["ip", "address"], ["ip", "netns"], ["ps", "-eo", "args"], ["ip", "route"]]
    return "\n".join([*(Path(path).read_text() for path in read), *("\n".join(lines(*words)) for words in asked)])
