"""The quickstart study on a real Slurm, as a person runs it: the records of one process."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launchers._submission import submissions
from suite.planner import make_plan
from suite.study import read_study

pytest.importorskip("submitit")
pytestmark = pytest.mark.slurm

# All kinds of cells, the oracles as well. The methods that are left out only make its three waves nine.
SHORT = (
    "seeds=[0]",
    "sparsities=[0.8]",
    'methods=["dense", "lomp", "random"]',
    "options.limit.fine_tune_epochs=1",
    "options.limit.max_evaluations=12",
)


def test_the_quickstart_study_has_the_records_of_one_process(
    cluster: Any,
    espalier: Callable[..., Any],
    out: Path,
    tmp_path: Path,
    science: Callable[[Path], dict[str, Any]],
    settings: Callable[..., list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ESPALIER_DATA", str(cluster.folder / "data"))
    words = ("quickstart", *settings(SHORT))
    num_cells = len(make_plan(*read_study("quickstart", SHORT)).cells)
    alone = espalier("run", *words, "--launcher", "inline", "--out", tmp_path / "alone")
    answer = espalier("run", *words, "--launcher", "slurm", "--profile", "devcluster", "--out", out)
    assert (alone.code, answer.code, answer.err) == (0, 0, "")
    assert f"{num_cells} cells: {num_cells} done in " in answer.out
    assert "queued again" not in answer.out
    assert science(out) == science(tmp_path / "alone")
    assert {path.name.partition("-")[0] for path in (out / "cells").glob("*.h5")} == {
        "dense",
        "dense_hessian",
        "limit",
        "masked_limit",
        "prune",
        "row_norms",
        "spectrum",
    }
    assert (out / "report" / "index.html").stat().st_size > 0
    assert cluster.queue() == []
    assert [array.wave for array in submissions(out)[0].arrays] == [0, 1, 2]
    again = espalier("submit", *words, "--profile", "devcluster", "--out", out)
    assert again.out == "study quickstart: nothing to queue, every cell is done or in the queue already\n"
