"""The doctor of a cluster, on a real one."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("submitit")
pytestmark = pytest.mark.slurm

PROFILE = 'partition = "batch"\nmemory_gib = 1\ngpus = 1\ntime_min = 20\nscratch = "/tmp"\n'


def doctor(folder: Path, out: Path, text: str = PROFILE) -> tuple[int, dict[str, str], str]:
    """Return the exit code, the line of each check, and what was said on standard error."""
    profile = folder / "site.toml"
    profile.write_text(text)
    command = [sys.executable, "-m", "espalier", "doctor", "--profile", str(profile), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    lines = {line[9:27].strip(): f"{line[:9].strip()} {line[27:]}" for line in done.stdout.splitlines()}
    return done.returncode, lines, done.stderr


def test_a_profile_that_fits_is_well_and_nothing_is_left(cluster: Any, tmp_path: Path) -> None:
    out = cluster.folder / "not-there-yet" / "one"
    code, lines, said = doctor(tmp_path, out)
    assert code == 0, (lines, said)
    assert {line.split()[0] for line in lines.values()} <= {"ok", "optional"}
    assert lines["controller"].startswith("ok devcluster, Slurm ")
    assert lines["partition"] == "ok batch, 2 nodes"
    assert lines["GPUs"] == "ok 1 of 2 on a node"
    assert lines["arrays"].startswith("ok up to 100 jobs")
    assert lines["accounting"] == "ok slurmdbd"
    assert lines["folder"].startswith(f"ok {out} is seen and written from n")
    assert "test job" in said
    assert not out.parent.exists()
    assert cluster.queue() == []


def test_a_folder_that_no_node_sees_is_told(cluster: Any, tmp_path: Path) -> None:
    out = tmp_path / "study"
    code, lines, _ = doctor(tmp_path, out)
    assert code == 2
    assert lines["test job"].startswith("change ")
    assert f"its node does not see {out}, or may not write there -> --out on a file system" in lines["test job"]
    assert not out.exists()
    assert cluster.queue() == []


def test_what_this_cluster_does_not_have_is_told_before_any_job(cluster: Any, tmp_path: Path) -> None:
    text = PROFILE.replace("gpus = 1", "gpus = 3").replace("batch", "urgent") + 'account = "nobody"\n'
    code, lines, said = doctor(tmp_path, cluster.folder, text)
    assert code == 2
    assert lines["GPUs"] == "change 3 asked (others), urgent has 2 on a node -> gpus = 2"
    assert lines["sbatch others"].startswith("change refused: ")
    assert "test job" not in said
