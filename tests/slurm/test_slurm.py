"""A whole study on a real Slurm, as a person runs it: the records of one process."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launchers._submission import submissions
from tests.slurm.studies import WHOLE

pytest.importorskip("submitit")
pytestmark = pytest.mark.slurm


def test_a_whole_study_has_the_records_of_one_process(
    cluster: Any,
    espalier: Callable[..., Any],
    study: Path,
    out: Path,
    reference: Callable[..., dict[str, Any]],
    science: Callable[[Path], dict[str, Any]],
    settings: Callable[..., list[str]],
) -> None:
    answer = espalier("run", study, "--launcher", "slurm", "--profile", "devcluster", "--out", out, *settings(WHOLE))
    assert (answer.code, answer.err) == (0, "")
    assert "11 cells: 11 done in " in answer.out
    assert science(out) == reference(WHOLE)
    assert (out / "report" / "index.html").stat().st_size > 0
    assert cluster.queue() == []
    assert [array.wave for array in submissions(out)[0].arrays] == [0, 1, 2]
    again = espalier("submit", study, "--profile", "devcluster", "--out", out, *settings(WHOLE))
    assert again.out == "study tiny-study: nothing to queue, every cell is done or in the queue already\n"
