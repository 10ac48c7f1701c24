"""Two cells of one job at a time on a real Slurm: the records of one process, and a warning that both heed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launchers._submission import SubmissionFolder, elements_of, submissions
from tests.slurm.studies import PACKED, SLOW, Drive, plan_of, slow_cells, wait_until

pytest.importorskip("submitit")
pytestmark = pytest.mark.slurm

# One job holds all dense cells, the slow ones of both seeds among them.
AT_ONCE = PACKED.model_copy(update={"cells_per_job": 4, "cells_at_once": 2, "memory_gib": 2.0})


def test_two_cells_at_once_heed_a_warning_and_have_the_records_of_one_process(
    cluster: Any,
    study: Path,
    out: Path,
    reference: Callable[..., dict[str, Any]],
    science: Callable[[Path], dict[str, Any]],
) -> None:
    plan = plan_of(study, SLOW)
    slow = slow_cells(plan)
    drive = Drive(plan, out, AT_ONCE)
    for cell in slow:
        drive.wait_until_at_work(cell)
    submission, array, index = elements_of(submissions(out))[slow[0].id.key]
    assert {drive.job_of(cell) for cell in slow} == {array.ids[index]}
    cluster.warn(array.ids[index])
    outcomes = drive.outcomes()
    assert {outcome.status for outcome in outcomes.values()} == {"done"}
    told = SubmissionFolder(out, submission.name).told(array.number, index)
    assert not [event["message"] for event in told if event["event"] == "stayed"]
    by_cell = [[event["event"] for event in told if event["cell"] == cell.id.key] for cell in slow]
    assert sorted(by_cell) == [["started", "left", "started", "ended"], ["started", "paused", "started", "ended"]]
    assert [event["event"] for event in told].count("left") == 1
    saved = [event["message"] for event in told if event["event"] in ("paused", "left")]
    assert all(message.startswith("saved training at step ") for message in saved)
    assert science(out) == reference(SLOW)
    assert not [*(out / "cells").glob("*.claim-*"), *(out / "cells").glob("*.checkpoint")]
    wait_until(lambda: not cluster.queue(), "jobs stay in the queue")
