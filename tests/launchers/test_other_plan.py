"""The frozen plan of a folder is not replaced while jobs of another one are in its queue."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launchers._submission import submissions
from tests.launchers.fake_slurm import FakeSlurm

pytestmark = pytest.mark.usefixtures("fake")


@pytest.fixture
def words(tiny_study: Path, working_folder: Path) -> Callable[..., list[object]]:
    """Return the words of a command on the tiny study; jobs are only queued, the fake Slurm runs none."""
    (working_folder / "site.toml").write_text("time_min = 20\n")

    def make(command: str, *settings: str) -> list[object]:
        more = [word for setting in settings for word in ("--set", setting)]
        profile = ["--profile", working_folder / "site.toml"] if command == "submit" else []
        return [command, tiny_study, *profile, "--out", "study", *more]

    return make


def test_another_plan_is_refused_as_long_as_its_jobs_are_there(
    words: Callable[..., list[object]], espalier: Callable[..., Any], fake: FakeSlurm, working_folder: Path
) -> None:
    assert espalier(*words("submit")).code == 0
    plan, jobs = (working_folder / "study/plan.json").read_bytes(), fake.jobs
    for command in ("submit", "run"):
        answer = espalier(*words(command, "training.epochs=2"))
        assert answer.code == 2
        assert f"{len(jobs)} jobs of another plan are in the queue for {working_folder / 'study'}" in answer.err
        assert "espalier cancel" in answer.err
    assert (working_folder / "study/plan.json").read_bytes() == plan
    assert fake.jobs == jobs
    assert len(submissions(working_folder / "study")) == 1
    assert espalier("cancel", "study").code == 0
    assert espalier(*words("submit", "training.epochs=2")).code == 0


def test_a_larger_plan_is_none_other(
    words: Callable[..., list[object]], espalier: Callable[..., Any], fake: FakeSlurm
) -> None:
    assert espalier(*words("submit", "sparsities=[0.5]", "analyses=[]")).code == 0
    before = len(fake.jobs)
    assert espalier(*words("submit", "sparsities=[0.5, 0.75]", "analyses=[]")).code == 0
    assert len(fake.jobs) > before
