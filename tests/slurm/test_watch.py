"""A controller that stands still and an accounting that is dead: the driver says so and goes on."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.slurm.studies import SLOW, Drive, needing, plan_of, slow_cells, wait_until

pytest.importorskip("submitit")
pytestmark = pytest.mark.slurm

PAUSE_S = 30  # three calls of squeue in vain


def test_the_driver_outlives_a_silent_controller_and_a_dead_accounting(
    cluster: Any,
    study: Path,
    out: Path,
    reference: Callable[..., dict[str, Any]],
    science: Callable[[Path], dict[str, Any]],
) -> None:
    plan = plan_of(study, SLOW)
    lost, other = slow_cells(plan)
    cluster.stop_accounting()
    drive = Drive(plan, out)
    for cell in (lost, other):
        drive.wait_until_at_work(cell)
    job = drive.job_of(lost)
    cluster.cancel(job)
    cluster.pause_controller()
    time.sleep(PAUSE_S)
    cluster.resume_controller()
    wait_until(lambda: any("accounting" in line for line in drive.said()), "nothing is said of the accounting")
    cluster.start_accounting()
    outcomes = drive.outcomes()
    silent, answers, *_ = drive.said()
    assert silent.startswith("Slurm does not answer (squeue: slurm_load_jobs error: Socket timed out")
    assert silent.endswith("; waiting, the jobs go on")
    assert answers == "Slurm answers again"
    assert outcomes.pop(lost.id.key).message.startswith(f"its job {job} ")
    assert {outcomes.pop(cell.id.key).status for cell in needing(plan, lost)} == {"upstream_failed"}
    assert {outcome.status for outcome in outcomes.values()} == {"done"}
    assert len(outcomes) == 7
    assert science(out).items() <= reference(SLOW).items()
