"""Submit, status, cancel, retry and run on a real Slurm, one after the other, as a person does."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.slurm.studies import SLOW, plan_of, slow_cells, wait_until

pytest.importorskip("submitit")
pytestmark = pytest.mark.slurm

PROFILE = "time_min = 20\nmemory_gib = 1\ncells_per_job = 2\nmax_running = {}\n"


def test_a_study_is_cancelled_at_work_and_finished_later(
    cluster: Any,
    espalier: Callable[..., Any],
    study: Path,
    out: Path,
    reference: Callable[..., dict[str, Any]],
    science: Callable[[Path], dict[str, Any]],
    stamps: Callable[[Path], dict[str, tuple[int, int]]],
    settings: Callable[..., list[str]],
    working_folder: Path,
) -> None:
    for number in (1, 4):
        (working_folder / f"{number}.toml").write_text(PROFILE.format(number))
    slow = slow_cells(plan_of(study, SLOW))[0].id.name

    def standing() -> dict[str, dict[str, Any]]:
        return {each["name"]: each for each in json.loads(espalier("status", out, "--json").out)["cells"]}

    def counted() -> Counter[str]:
        return Counter(each["state"] for each in standing().values())

    answer = espalier("submit", study, "--profile", "./1.toml", "--out", out, *settings(SLOW))
    assert answer.out.startswith("study tiny-study: 10 of 10 cells queued, 5 jobs in 2 arrays, named tiny-study-")

    wait_until(lambda: standing()[slow]["state"] == "running", "no cell is seen to run")
    found = standing()
    assert Counter((each["wave"], each["state"], each["message"]) for each in found.values()) == {
        (0, "done", ""): 1,
        (0, "running", found[slow]["message"]): 1,
        (0, "queued", "JobArrayTaskLimit"): 2,
        (1, "waiting", "Dependency"): 6,
    }
    lines = espalier("status", out).out.splitlines()
    assert any(line.startswith(f"running on {found[slow]['node']}: {slow} (") for line in lines)
    assert {"2 queued: JobArrayTaskLimit", "6 waiting: Dependency"} <= set(lines)

    before = stamps(out)
    answer = espalier("cancel", out)
    assert answer.out.startswith("study tiny-study: 5 jobs cancelled, with 9 cells; none is left\n")
    assert cluster.queue() == []
    assert counted() == {"done": 1, "missing": 9}  # not running, although the killed job has left its claim
    assert espalier("cancel", out).out == "study tiny-study: nothing is queued, nothing was cancelled\n"
    line = "study tiny-study: nothing failed and nothing was lost; 9 cells are missing: espalier submit "
    assert espalier("retry", out).out.startswith(line)

    answer = espalier("run", study, "--launcher", "slurm", "--profile", "./4.toml", "--out", out, *settings(SLOW))
    assert (answer.code, answer.err) == (0, "")
    assert "10 cells: 9 done, 1 cached in " in answer.out
    assert before.items() <= stamps(out).items()
    assert science(out) == reference(SLOW)
    assert (cluster.queue(), counted()) == ([], {"done": 10})
