"""`espalier doctor --profile`; what it finds is tested in tests/launchers/test_slurm_survey.py."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from launchers._finding import Finding

Espalier = Callable[..., Any]

WELL = Finding("partition", "ok", "batch, 2 nodes")
TOO_LONG = Finding("time limit", "change", "90 asked, batch has 60 min", "time_min = 60")


@pytest.mark.parametrize(("findings", "code"), [([WELL], 0), ([WELL, TOO_LONG], 2)])
def test_one_line_for_each_check_and_the_exit_code(
    findings: list[Finding], code: int, espalier: Espalier, working_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def survey(profile: Any, folder: Path, told: Callable[[str], None]) -> Iterator[Finding]:
        assert (profile.partition, folder) == ("batch", working_folder)
        told("test job 12: pending (Priority)")
        told("")
        yield from findings

    monkeypatch.setattr("launchers._slurm_survey.survey_cluster", survey)
    answer = espalier("doctor", "--profile", "devcluster")
    assert (answer.code, answer.err) == (code, "test job 12: pending (Priority)\n")
    lines = [
        "ok       partition         batch, 2 nodes",
        "change   time limit        90 asked, batch has 60 min -> time_min = 60",
    ]
    assert answer.out.splitlines() == lines[: len(findings)]


def test_a_wrong_call_is_told_in_one_line(refused: Callable[..., str]) -> None:
    assert refused("doctor", "--out", "x") == "espalier: --out x is for a cluster. Expected: with --profile P."
    assert "No profile named 'devclustr'" in refused("doctor", "--profile", "devclustr")
