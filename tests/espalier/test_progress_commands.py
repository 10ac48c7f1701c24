"""Commands about a study under way, as a person calls them, on a fake Slurm."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launchers._submission import submissions
from tests.launchers.fake_slurm import FakeSlurm

Espalier = Callable[..., Any]
Refused = Callable[..., str]


@pytest.fixture
def queued(small_study: Path, working_folder: Path, settings: list[str], fake: FakeSlurm, espalier: Espalier) -> Path:
    """The folder of the small study, all of it in the queue."""
    (working_folder / "site.toml").write_text("time_min = 20\n")
    answer = espalier("submit", small_study, "--profile", "./site.toml", "--out", "study", *settings)
    assert answer.code == 0, answer.err
    return working_folder / "study"


def rows(out: str) -> list[list[str]]:
    """The rows of a table, without its lines."""
    return [[word.strip() for word in line.split("│")[1:-1]] for line in out.splitlines() if line.startswith("│")]


def test_status_shows_a_queued_study_by_waves_and_reasons(queued: Path, espalier: Espalier) -> None:
    answer = espalier("status", queued)
    assert (answer.code, answer.err) == (0, "")
    first, *later = rows(answer.out)
    assert first[0].startswith("0: dense")
    assert later[0][0].startswith("1: ")
    assert any(line.endswith(" queued: Priority") for line in answer.out.splitlines())
    assert any(line.endswith(" waiting: Dependency") for line in answer.out.splitlines())


def test_status_tells_everything_to_a_program(queued: Path, fake: FakeSlurm, espalier: Espalier) -> None:
    fake.fails("squeue", "Unable to contact slurm controller")
    found = json.loads(espalier("status", queued, "--json").out)
    assert {cell["state"] for cell in found["cells"]} == {"unknown"}
    assert all(cell["job"] in fake.jobs for cell in found["cells"])
    assert "Slurm does not answer" in found["notes"][0]
    answer = espalier("status", queued)
    assert answer.code == 0
    assert answer.err.startswith("espalier: Slurm does not answer (squeue: Unable to contact slurm controller)")


def test_cancel_says_what_it_took_and_status_agrees(queued: Path, fake: FakeSlurm, espalier: Espalier) -> None:
    fake.run(submissions(queued)[0].arrays[0].ids[0])
    number = sum(job["state"] == "PENDING" for job in fake.jobs.values())
    answer = espalier("cancel", queued)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith(f"study tiny-study: {number} jobs cancelled, with {number} cells; none is left\n")
    assert f"espalier submit {queued}/study.toml --profile P --out {queued}" in answer.out
    assert {job["state"] for job in fake.jobs.values()} == {"CANCELLED", "COMPLETED"}
    states = [cell["state"] for cell in json.loads(espalier("status", queued, "--json").out)["cells"]]
    assert (states.count("done"), states.count("missing")) == (1, number)
    assert espalier("cancel", queued).out == "study tiny-study: nothing is queued, nothing was cancelled\n"


def test_cancel_of_a_study_that_was_never_queued(study: Path, fake: FakeSlurm, espalier: Espalier) -> None:
    assert espalier("cancel", study).out == "study tiny-study: nothing is queued, nothing was cancelled\n"
    assert not fake.calls()


def test_cancel_without_slurm_is_told_in_one_line(queued: Path, fake: FakeSlurm, refused: Refused) -> None:
    fake.fails("squeue", "Unable to contact slurm controller")
    assert refused("cancel", queued) == (
        "espalier: squeue: Unable to contact slurm controller. Jobs may be left in the queue; run the same command "
        "again."
    )


@pytest.fixture
def failed(queued: Path, fake: FakeSlurm, tiny_data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The queued study after its jobs have run, one dense cell without luck; mended by now."""

    def unlucky(*_: object) -> None:
        raise RuntimeError("no luck \x1b[31mtoday")

    with monkeypatch.context() as patch:
        patch.setattr("suite.cells.dense.run", unlucky)
        fake.run(submissions(queued)[0].arrays[0].ids[0])
    fake.run_all()
    return queued


def the_failed(folder: Path) -> str:
    (log,) = (folder / "logs").iterdir()
    return log.stem


def test_logs_tell_why_where_and_how_to_run_just_that_cell(failed: Path, espalier: Espalier) -> None:
    name = the_failed(failed)
    answer = espalier("logs", failed)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith(f"{name} (")
    assert "RuntimeError: no luck  [31mtoday" in answer.out
    assert "\x1b" not in answer.out
    assert " ended failed after " in answer.out
    assert f"whole log: {failed / 'logs' / name}.log" in answer.out
    command = f"espalier retry {failed} {name} --only --launcher inline"
    assert answer.out.splitlines()[-1] == f"just this cell, here: {command}"
    short = espalier("logs", failed, name[:-8], "--lines", "1")
    assert len([line for line in short.out.splitlines() if line.startswith("  | ")]) == 1
    answer = espalier(*command.split()[1:])
    assert answer.code == 0, answer.err
    assert " 1 done" in answer.out
    assert espalier("logs", failed).out == "study tiny-study: nothing failed, nothing was lost, nothing runs\n"


def test_retry_queues_what_failed_and_what_waits_with_the_same_profile(
    failed: Path, fake: FakeSlurm, espalier: Espalier
) -> None:
    states = [cell["state"] for cell in json.loads(espalier("status", failed, "--json").out)["cells"]]
    before = set(fake.jobs)
    answer = espalier("retry", failed)
    assert (answer.code, answer.err) == (0, "")
    assert states.count("failed") == 1
    assert set(states) == {"done", "failed", "missing"}
    new = set(fake.jobs) - before
    assert len(new) == len(states) - states.count("done")
    assert submissions(failed)[0].profile == submissions(failed)[1].profile
    fake.run_all()
    assert {cell["state"] for cell in json.loads(espalier("status", failed, "--json").out)["cells"]} == {"done"}
    assert espalier("retry", failed).out.startswith("study tiny-study: nothing failed and nothing was lost; 0 cells")


def test_what_waited_for_a_lost_cell_is_tried_again_by_the_next_retry(
    queued: Path, fake: FakeSlurm, espalier: Espalier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("launchers._element.LOOK_S", 0.0)
    first, *others = fake.jobs
    fake.set(first, state="OUT_OF_MEMORY")
    assert ": 1 of 1 cells queued" in espalier("retry", queued).out
    for job in others:  # they wait for the end of the lost job, which has come
        fake.run(job)
    answer = espalier("retry", queued)
    assert " cells queued" in answer.out, answer.out
    fake.run_all()
    assert {cell["state"] for cell in json.loads(espalier("status", queued, "--json").out)["cells"]} == {"done"}


def test_a_retry_of_nothing_names_what_queues_the_missing_cells(
    queued: Path, fake: FakeSlurm, espalier: Espalier
) -> None:
    espalier("cancel", queued)
    before = set(fake.jobs)
    said = espalier("retry", queued).out
    command = said.partition(" cells are missing: espalier ")[2].replace("--profile P", "--profile ./site.toml")
    assert espalier(*command.split()).code == 0
    assert len(fake.jobs) == 2 * len(before)


def test_a_study_that_was_never_queued_is_retried_here(study: Path, espalier: Espalier, refused: Refused) -> None:
    for kind in ("spectrum", "dense"):
        cell = min((study / "cells").glob(f"{kind}-*.h5"))
        cell.unlink()
        (study / "logs" / f"{cell.stem}.log").write_text("title\n\nValueError: no\n")
    assert f"| ValueError: no\nwhole log: {study / 'logs' / cell.stem}.log" in espalier("logs", study, cell.stem).out
    assert "was never queued. Expected: --profile P" in refused("retry", study, "--launcher", "slurm")
    answer = espalier("retry", study)
    assert answer.code == 0, answer.err
    assert " 2 done" in answer.out


@pytest.mark.parametrize("command", ["logs", "retry"])
def test_a_cell_that_is_not_one_is_refused(command: str, study: Path, refused: Refused) -> None:
    assert "'prune-' means " in refused(command, study, "prune-")
    assert "No cell 'prne-00' in this study." in refused(command, study, "prne-00")
    assert "No cell ''" in refused(command, study, "")


def test_a_done_cell_is_not_retried(study: Path, refused: Refused) -> None:
    name = min((study / "cells").glob("prune-*.h5")).stem
    assert f"{name} is done. Expected: a cell that failed or is missing" in refused("retry", study, name)


def test_one_unreadable_submission_is_named_by_all_commands_and_taken_back_by_cancel(
    queued: Path, small_study: Path, settings: list[str], fake: FakeSlurm, espalier: Espalier, refused: Refused
) -> None:
    (path,) = queued.glob("slurm/*/submission.json")
    path.write_text("null")
    submit = ("submit", small_study, "--profile", "./site.toml", "--out", queued, *settings)
    told = [refused(word, queued) for word in ("status", "logs", "retry")]
    told += espalier(*submit).err.splitlines()
    assert len(told) == 4
    for line in told:
        assert line.startswith(f"espalier: {path} is not readable (")
        assert f"scancel --name {path.parent.name}" in line
    answer = espalier("cancel", queued)
    assert answer.code == 0
    assert answer.err == f"espalier: {path} is not readable; its jobs are gone, remove {path.parent}\n"
    assert {job["state"] for job in fake.jobs.values()} == {"CANCELLED"}
