"""The README's page for clusters, command by command as it is written, on a real Slurm: from a profile to a report."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.test_readme import block_with

pytest.importorskip("submitit")
pytestmark = [pytest.mark.slurm, pytest.mark.slow]


def call(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "ESPALIER_DATA": str(folder / "data")}
    return subprocess.run(line, shell=True, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_from_a_profile_to_a_report(cluster: Any, out: Path) -> None:
    folder = out.parent
    (folder / "my-study.toml").write_text(block_with("toml", 'name = "my-study"'))
    (folder / "my-cluster.toml").write_text(block_with("toml", "partition"))
    commands = block_with("sh", "espalier doctor") + block_with("sh", "espalier submit")
    doctor, submit, status, run = (call(line, folder) for line in commands.splitlines())
    assert doctor.returncode == 0, doctor.stdout + doctor.stderr
    assert submit.returncode == 0, submit.stderr
    assert "queued" in submit.stdout
    assert status.returncode == 0, status.stderr
    assert run.returncode == 0, run.stderr
    assert "LOMP + fine-tuning" in run.stdout
    assert (folder / "runs/my-study/report/index.html").stat().st_size > 100_000
    assert cluster.queue() == []
    for command in ("status", "logs", "retry", "cancel"):
        words = "--profile my-cluster.toml" if command == "retry" else ""
        answer = call(f"espalier {command} runs/my-study {words}", folder)
        assert answer.returncode == 0, answer.stderr
