"""2,500 cells on a cluster whose arrays have at most a hundred elements, and how often Slurm was asked."""

import os
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from launchers._profile import Profile
from launchers._submission import submissions
from tests.slurm.studies import Drive, plan_of

pytest.importorskip("submitit")
pytestmark = [pytest.mark.slurm, pytest.mark.slow]

SEEDS, SPARSITIES, PER_JOB = 100, 24, 23
PATIENCE_S = 1200  # on two threads of one core it took 350 s: 110 times Python and torch have to start
MANY = (
    'methods=["random"]',
    f"sparsities={[index / 25 for index in range(1, SPARSITIES + 1)]}",
    f"seeds={list(range(SEEDS))}",
    "analyses=[]",
    "options={}",
    "training.epochs=1",
    "training.batch_size=160",  # one step
)
COUNTED = ("sbatch", "squeue", "sacct", "scontrol", "scancel")


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Counter[str]]:
    """Count the calls of Slurm's commands by this process: no node sees the folder that is put in front of PATH."""
    (tmp_path / "bin").mkdir()
    for name in COUNTED:
        path = tmp_path / "bin" / name
        path.write_text(f'#!/bin/sh\necho {name} >>{tmp_path}/calls\nexec {shutil.which(name)} "$@"\n')
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    return lambda: Counter((tmp_path / "calls").read_text().split())


def test_thousands_of_cells_cost_few_calls(
    cluster: object, study: Path, out: Path, calls: Callable[[], Counter[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    plan = plan_of(study, MANY)
    assert len(plan.cells) == SEEDS * (1 + SPARSITIES) == 2500
    start_s = time.monotonic()
    profile = Profile(time_min=20, memory_gib=1, cells_per_job=PER_JOB, environment=("OMP_NUM_THREADS",))
    outcomes = Drive(plan, out, profile, most_s=30).outcomes(PATIENCE_S)
    took_s = time.monotonic() - start_s
    assert {outcome.status for outcome in outcomes.values()} == {"done"}
    assert len(list((out / "cells").glob("[!.]*.h5"))) == len(plan.cells)
    assert [len(array.ids) for array in submissions(out)[0].arrays] == [5, 100, 5]
    counted = calls()
    with capsys.disabled():
        print(f"\n{len(plan.cells)} cells in {took_s:.0f} s: {dict(counted)}")
    assert counted["sbatch"] == 3
    assert counted["scontrol"] == 2
    assert counted["sacct"] == counted["scancel"] == 0
    assert counted["squeue"] <= took_s  # one a second while there is news, fewer when there is none
