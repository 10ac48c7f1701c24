"""Probes of one cell on two nodes of a real Slurm: the numbers of one process, and nothing left behind."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launchers import inline, slurm
from launchers._events import Event
from launchers._profile import Profile
from launchers._slurm_cluster import SlurmCluster
from launchers._submission import submissions
from launchers._watch import Watch
from suite.attempt import Outcome
from suite.plan import Plan
from suite.planner import make_plan
from suite.store import Store
from suite.study import read_study

pytest.importorskip("submitit")
pytest.importorskip("ray")
pytestmark = pytest.mark.slurm

SMALL = (
    'methods=["dense"]',
    "sparsities=[0.8]",
    "seeds=[0]",
    'analyses=["spectrum"]',
    "training.epochs=1",
    "options.spectrum.num_probes=24",
    "options.spectrum.num_lanczos_steps=192",  # long enough that all workers are there before the last probe
)
TWO_NODES = {
    "time_min": 20,
    "memory_gib": 1,
    "environment": ["OMP_NUM_THREADS"],
    "kinds": {"spectrum": {"nodes": 2, "gpus": 2, "memory_gib": 4}},
}


@pytest.fixture
def plan(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """One dense network and its spectrum, with data where all nodes see them."""
    monkeypatch.setenv("ESPALIER_DATA", str(cluster.folder / "data"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    return make_plan(*read_study("quickstart", SMALL))


@pytest.fixture
def by_one_process(plan: Plan, cluster: Any, tmp_path: Path) -> Path:
    folder = tmp_path / "inline"
    Store(folder).prepare()
    outcomes = inline.run(plan, folder, workers=1, report=lambda _: None)
    assert {outcome.status for outcome in outcomes} == {"done"}
    return folder


@pytest.fixture
def study(by_one_process: Path, cluster: Any, tmp_path: Path) -> Path:
    """The same study with the spectrum missing."""
    folder = cluster.folder / tmp_path.name
    shutil.copytree(by_one_process, folder)
    for path in (folder / "cells").glob("spectrum-*"):
        path.unlink()
    return folder


def run(plan: Plan, folder: Path, profile: dict[str, Any]) -> tuple[Outcome, list[Event]]:
    """Queue what is missing and wait; return the spectrum's outcome and all events."""
    events: list[Event] = []
    slurm.submit(plan, folder, Profile.model_validate(profile, strict=False), SlurmCluster())
    outcomes = Watch(plan, folder, SlurmCluster(), events.append).wait()
    return next(each for each in outcomes if each.cell.kind == "spectrum"), events


def told(folder: Path, event: str) -> list[dict[str, Any]]:
    lines = [line for path in folder.glob("slurm/*/events/*") for line in path.read_text().splitlines()]
    return [each for each in map(json.loads, lines) if each["event"] == event]


def on_both(script: str) -> str:
    command = ["srun", "--nodes=2", "--ntasks-per-node=1", "--label", "bash", "-c", script]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def test_four_workers_on_two_nodes_find_what_one_process_finds(
    plan: Plan, by_one_process: Path, study: Path, cluster: Any, science: Callable[[Path], dict[str, Any]]
) -> None:
    outcome, _ = run(plan, study, TWO_NODES)
    assert outcome.status == "done", outcome.message
    assert [each["hosts"] for each in told(study, "workers")] == [{"n1": 2, "n2": 2}]
    assert science(study) == science(by_one_process)
    nothing_is_left(cluster, study)


def nothing_is_left(cluster: Any, study: Path) -> None:
    """Check that the last job has ended, with its Ray and all its files on both nodes, and that its logs were kept."""
    job = submissions(study)[0].arrays[-1].ids[0]
    cluster.wait_for(job, "COMPLETED")
    assert subprocess.run(["squeue", "--noheader"], capture_output=True, text=True, check=True).stdout == ""
    processes = "pgrep --full --list-full '[r]aylet|[g]cs_server|ray[:.]|[_]ray_node'"
    assert on_both(f"{processes}; ls -d /tmp/esp-{job}-* 2>&-; true") == ""
    assert {path.parent.name for path in study.glob("slurm/*/ray/*/n?/raylet.out")} == {"n1", "n2"}
