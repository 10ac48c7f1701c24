"""A dry run: a plan that a person can judge, and nothing made or left on the disk."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.espalier.conftest import everything

Espalier = Callable[..., Any]
Refused = Callable[..., str]


def columns(out: str, work: str) -> list[str]:
    """Return a row of the table: cells, trainings, steps, products, time, ..."""
    (line,) = [line for line in out.splitlines() if re.match(rf" *{work}  ", line)]
    return re.split(r" {2,}", line.strip())[1:]


def gpu_seconds(out: str) -> float:
    """Return what is said of the GPU that is meant."""
    ((number, unit),) = re.findall(r"sustained: ~?(\S+) GPU-(hours|seconds)", out)
    return float(number) * {"hours": 3600.0, "seconds": 1.0}[unit]


@pytest.fixture
def seen(espalier: Espalier, working_folder: Path, data_folder: Path) -> Espalier:
    """Run a command that must end well and change nothing on the disk; return what it printed."""

    def call(*arguments: object) -> str:
        before = everything(working_folder.parent) | everything(data_folder)
        answer = espalier(*arguments)
        assert answer.code == 0, answer
        assert everything(working_folder.parent) | everything(data_folder) == before
        return str(answer.out)

    return call


def test_the_plan_by_hand(small_study: Path, seen: Espalier) -> None:
    out = seen("run", small_study, "--dry-run", "--set", "analyses=[]")
    # 160 examples in batches of 32 for 3 epochs; three recipes, a rewinding point at step 3, four rounds of IMP
    assert out.splitlines()[0] == "study tiny-study: 19 cells; left to do:"
    assert columns(out, "dense")[:3] == ["5", "4", "48"]  # and the row of the method that keeps all
    assert columns(out, "imp")[:3] == ["4", "4", "48"]
    assert columns(out, "rare_gems")[:3] == ["2", "4", "60"]
    assert columns(out, "tiny")[:3] == ["19", "18", "246"]
    assert re.search(r"longest chain: \S+ s \(1 dense, 3 imp\)", out)
    assert "one cell at a time: " in out
    assert "at 20 TFLOP/s sustained: " in out
    assert "sustained: less than 0.001 GPU-seconds" in out
    assert re.search(r"tiny on 1 thread: training \d", out)
    assert "not prepared" not in out
    assert max(map(len, out.splitlines())) <= 100


def test_guesses_have_their_range(small_study: Path, seen: Espalier) -> None:
    out = seen(
        "run", small_study, "--dry-run", "--set", "methods=[]", "--set", "options={limit={num_lanczos_steps=72}}"
    )
    assert columns(out, "spectrum")[2:4] == ["-", "256"]  # four probes of 64 steps: known
    assert columns(out, "limit")[1:3] == ["~47", "~7050"]  # trainings of 30 epochs
    assert "~: how often a search evaluates" in out


def test_what_is_committed_is_not_counted(study: Path, settings: list[str], small_study: Path, seen: Espalier) -> None:
    out = seen("run", small_study, "--out", study, "--dry-run", *settings, "--set", "seeds=[0,1]")
    total, done = re.findall(r"(\d+) cells, (\d+) of them done", out)[0]
    assert int(total) == 2 * int(done)
    assert columns(out, "tiny")[0] == done
    out = seen("run", small_study, "--out", study, "--dry-run", *settings)
    assert f"{done} of them done in {study}: nothing is left to do" in out
    assert "longest chain" not in out


def test_data_that_is_not_there_is_planned_all_the_same(
    seen: Espalier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ESPALIER_DATA", str(tmp_path / "none"))
    out = seen(
        "run", "quickstart", "--dry-run", "--set", 'methods=["imp"]', "--set", "analyses=[]", "--set", "seeds=[0]"
    )
    assert "data not prepared: digits, written on first use" in out
    # 11 rounds to 0.9 of which 10 are shared, and so on: 17 below 0.98, and the four that were asked for
    assert columns(out, "imp")[:3] == ["21", "21", "39.9 k"]


def test_a_gpu_that_is_not_there(small_study: Path, seen: Espalier) -> None:
    slow, fast = (
        seen("run", small_study, "--dry-run", "--set", "analyses=[]", "--tflops", each) for each in (1e-3, 2e-3)
    )
    assert "(--tflops to change)" not in slow
    slow_s, fast_s = map(gpu_seconds, (slow, fast))
    assert slow_s == pytest.approx(2 * fast_s, rel=0.1)  # to two digits
    # 96 operations an example forward: 246 steps of 32 examples three times, 14 trainings' evaluations, 19 cells'
    operations = 144 * (3 * 246 * 32 + 270 * 16 + 250 * 19)
    assert slow_s == pytest.approx(operations / 1e9, rel=0.1)


def test_a_profile_is_judged(small_study: Path, seen: Espalier, tmp_path: Path) -> None:
    profile = tmp_path / "small.toml"
    profile.write_text("time_min = 1\nmemory_gib = 0.01\nmax_running = 3\n")
    out = " ".join(seen("submit", small_study, "--profile", profile, "--dry-run", "--set", "analyses=[]").split())
    assert "3 cells at a time: " in out
    assert "profile, dense: memory_gib = 0.01 IS TOO LITTLE (" in out
    assert "time_min = 1 suffices (" in out
    profile.write_text("time_min = 1\nmemory_gib = 64\ncells_per_job = 10000\n[kinds.prune]\ngpus = 1\n")
    out = " ".join(seen("submit", small_study, "--profile", profile, "--dry-run", "--set", "analyses=[]").split())
    assert "profile, dense: memory_gib = 64 suffices (" in out
    assert "time_min = 1 IS TOO LITTLE (10000 cells in a job, " in out
    assert "a processor cannot tell; give --tflops" in out


def test_cells_at_once_need_the_memory_of_all_and_the_time_of_some(
    small_study: Path, seen: Espalier, tmp_path: Path
) -> None:
    profile = tmp_path / "packed.toml"
    profile.write_text("time_min = 1\nmemory_gib = 64\ncells_per_job = 2000\ncells_at_once = 2000\n")
    out = " ".join(seen("submit", small_study, "--profile", profile, "--dry-run", "--set", "analyses=[]").split())
    assert "profile, dense: memory_gib = 64 IS TOO LITTLE (" in out
    assert "time_min = 1 suffices (2000 cells in a job, 2000 at once, " in out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--set", 'methods=["lompp"]'), "No method named 'lompp'. Did you mean 'lomp'?"),
        (("--set", 'data="digit"'), "No data set named 'digit'. Did you mean 'digits'?"),
        (("--set", 'data="/nowhere/mine.h5"'), "/nowhere/mine.h5 does not exist."),
        (("--profile", "cpu"), "--profile cpu is for a cluster."),
        (("--tflops", "0"), "--tflops"),
    ],
)
def test_bad_input_is_one_line(words: tuple[str, ...], line: str, small_study: Path, refused: Refused) -> None:
    assert line in refused("run", small_study, "--dry-run", *words)


def test_milestones_behind_the_end_are_told_before_anything_else(small_study: Path, espalier: Any) -> None:
    late = ("--set", "training.schedule=step", "--set", "training.milestones=[1, 90]", "--set", "analyses=[]")
    answer = espalier("run", small_study, "--dry-run", *late)
    assert answer.code == 0
    assert "espalier: warning: task " in answer.err
    assert answer.err.count("does not fall at milestones = [90]") == 1


def test_tflops_belong_to_a_dry_run(small_study: Path, refused: Refused) -> None:
    assert "--tflops 5 is for an estimate. Expected: with --dry-run." in refused("run", small_study, "--tflops", "5")


def test_a_smoke_is_not_estimated(small_study: Path, refused: Refused) -> None:
    assert "Expected: one of the two." in refused("run", small_study, "--dry-run", "--smoke")


def test_as_many_cells_at_a_time_as_a_run_has_workers(
    small_study: Path, seen: Espalier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("espalier.dry_run.num_workers", lambda: 5)
    words = ("--dry-run", "--set", "analyses=[]")
    assert "5 cells at a time: " in seen("run", small_study, "--launcher", "ray", *words)
    assert "one cell at a time: " in seen("run", small_study, *words)
    assert "2 cells at a time: " in seen("run", small_study, "--launcher", "ray", "--workers", "2", *words)


def test_several_processes_that_share_batches(small_study: Path, seen: Espalier, tmp_path: Path) -> None:
    (tmp_path / "two.toml").write_text("time_min = 1\nmemory_gib = 64\n[kinds.prune]\ngpus = 2\n")
    words = ("--dry-run", "--set", "analyses=[]", "--tflops", "1e-3", "--profile", tmp_path / "two.toml")
    alone, shared = (seen("submit", small_study, *words, "--set", f"training.data_parallel={each}") for each in (1, 2))
    assert columns(shared, "tiny")[:3] == columns(alone, "tiny")[:3] == ["19", "18", "246"]
    assert "data_parallel: memory is that of one process of 2" in shared
    assert "data_parallel" not in alone
    assert " on each GPU" in shared
    # each of the two evaluates everything, but for the cell that trains nothing: it has one process
    operations = 144 * (3 * 246 * 32 + 2 * (270 * 16 + 250 * 18) + 250)
    assert gpu_seconds(shared) == pytest.approx(operations / 1e9, rel=0.1)


def test_trials_that_contradict_one_another_give_no_times(
    small_study: Path, seen: Espalier, monkeypatch: pytest.MonkeyPatch
) -> None:
    from suite.estimate import timing

    monkeypatch.setattr(timing, "CONTRADICTION", 0.0)
    study = ("run", small_study, "--dry-run", "--set", "analyses=[]")
    out = seen(*study)
    assert columns(out, "imp")[:4] == ["4", "4", "48", "?"]
    assert re.search(
        r"^tiny: no times, for equal trials differed by a factor of [\d.]+; estimate it again later\.$", out, re.M
    )
    assert not re.search(r"longest chain|one cell at a time|this machine's processor:", out)
    assert "at 20 TFLOP/s sustained: " in out
    of_a_gpu = seen(*study, "--tflops", "1")  # whose times are counted, not measured
    assert "no times" not in of_a_gpu
    assert "longest chain" in of_a_gpu


def test_no_number_is_broken_over_two_lines(small_study: Path, seen: Espalier, monkeypatch: pytest.MonkeyPatch) -> None:
    from espalier import dry_run

    monkeypatch.setattr(dry_run, "WIDTH", 40)
    out = seen("run", small_study, "--dry-run", "--set", "methods=[]", "--set", "options={}")
    table = out[: out.index("longest chain")].splitlines()[1:]
    assert all(re.match(r"(Task and work|tiny|  [a-z_]+)  ", row) for row in table), out
    assert re.search(r"  limit  .* \S+-\S+ (s|min)  ", out)
