import os
from pathlib import Path

import pytest

from launchers._allocation import Allocation, allocation
from launchers.ray_cluster import RayFailed, last_words, ray_cluster, step_command
from suite.errors import UserError

JOB = {
    "SLURM_JOB_ID": "15",
    "SLURMD_NODENAME": "n2",
    "SLURM_JOB_NODELIST": "n1,n2,n7",
    "SLURM_CPUS_PER_TASK": "4",
    "SLURM_CPUS_ON_NODE": "64",
    "SLURM_GPUS_ON_NODE": "2",
    "SLURM_MEM_PER_NODE": "3000",
}


def test_an_allocation_is_what_slurm_says_with_this_node_first() -> None:
    assert allocation(JOB) == Allocation(15, "15", ("n2", "n1", "n7"), 4, 2, 3000 * 2**20)


def test_an_element_of_an_array_and_its_later_tries_have_names_of_their_own() -> None:
    element = JOB | {"SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "3"}
    assert (allocation(element).number, allocation(element).name) == (15, "12_3")
    assert allocation(element | {"SLURM_RESTART_COUNT": "2"}).name == "12_3-restart2"


def test_what_slurm_does_not_tell_is_told_in_other_words_or_small() -> None:
    few = {name: JOB[name] for name in ("SLURM_JOB_ID", "SLURMD_NODENAME")} | {"SLURM_JOB_NODELIST": "n2"}
    assert allocation(few) == Allocation(15, "15", ("n2",), 1, 0, 2 * 2**30)
    more = few | {"SLURM_CPUS_ON_NODE": "3", "SLURM_MEM_PER_CPU": "100", "SLURM_GPUS_PER_NODE": "tesla:4"}
    assert allocation(more) == Allocation(15, "15", ("n2",), 3, 4, 300 * 2**20)


def test_a_range_of_nodes_is_read_by_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scontrol = tmp_path / "scontrol"
    scontrol.write_text('#!/bin/sh\n[ "$*" = "show hostnames n[1-2]" ] && printf "n1\\nn2\\n"\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert allocation(JOB | {"SLURM_JOB_NODELIST": "n[1-2]"}).hosts == ("n2", "n1")
    with pytest.raises(UserError, match="scontrol does not tell the nodes of this job"):
        allocation(JOB | {"SLURM_JOB_NODELIST": "n[1-3]"})


def test_outside_a_job_it_says_so() -> None:
    with pytest.raises(UserError, match="SLURM_JOB_ID is not set"):
        allocation({})


def test_a_step_stands_beside_all_others_on_one_node_with_all_of_the_job() -> None:
    words = step_command(allocation(JOB), "n7")
    assert words[0] == "srun"
    assert {
        "--jobid=15",
        "--overlap",
        "--nodes=1",
        "--ntasks=1",
        "--nodelist=n7",
        "--cpus-per-task=4",
        "--mem=0",
    } <= set(words)


def test_a_job_without_srun_has_no_ray_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    alone = allocation(JOB | {"SLURM_JOB_NODELIST": "n2"})
    with (
        pytest.raises(RayFailed, match=r"^srun cannot be started on n2: No such file or directory\. Expected: "),
        ray_cluster(alone, tmp_path / "logs", lambda _: None),
    ):
        pass


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("started\nRuntimeError: no disk.\nbye\n", "RuntimeError: no disk"),
        ("port 20004 is taken on n2\nsrun: error: n2: task 0: Exited with exit code 75\n", "port 20004 is taken on n2"),
        ("srun: error: Unable to create step\n", "srun: error: Unable to create step"),
        ("one\ntwo\n", "two"),
        ("", ""),
    ],
)
def test_the_line_that_explains_is_found_in_a_log(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "n1.txt").write_text(text)
    assert last_words(tmp_path / "n1.txt") == words
    assert last_words(tmp_path / "none.txt") == ""
