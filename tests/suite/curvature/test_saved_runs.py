"""Two processes save one run: both end, and the folder holds one whole state. The runs alone: test_growing_runs."""

import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from data.hdf5 import FileRefused, temporary_name
from suite.curvature import saved_runs
from suite.curvature.basis import Placement
from suite.curvature.growing_runs import GrowingRuns
from suite.curvature.lanczos import LanczosRun
from suite.curvature.operators import DiagonalOperator
from suite.curvature.probes import ProbeRequest, start_vector
from suite.curvature.saved_runs import load_run, save_run
from suite.curvature.slq import run_probe

DIM, MOST, NUM_ROUNDS = 300, 60, 6
PLACEMENT = Placement(torch.device("cpu"), torch.float32)
SAVER = """
import sys, time
from contextlib import nullcontext
from pathlib import Path

import torch

from suite.curvature import saved_runs
from suite.curvature.growing_runs import GrowingRuns
from suite.curvature.operators import DiagonalOperator
from suite.curvature.probes import ProbeRequest

torch.set_num_threads(1)
root, me, other, step, most, num_rounds, locks = Path(sys.argv[1]), *sys.argv[2:4], *map(int, sys.argv[4:])
if not locks:
    saved_runs.exclusive = lambda *_: nullcontext(False)
for number in range(num_rounds):
    (root / f"{me}-{number}").touch()
    end_s = time.monotonic() + 30
    while not (root / f"{other}-{number}").exists():
        assert time.monotonic() < end_s, "the other process has failed"
        time.sleep(0.0005)
    for steps in range(step, most + 1, step):
        if steps % (2 * step):  # every second part as a process that has just begun: it reads while the other writes
            runs = GrowingRuns(DiagonalOperator(torch.linspace(0.1, 5, 300)), root / f"round-{number}")
        runs.run(ProbeRequest(0, 0, "rademacher", steps))
"""


def operator(scale: float = 1.0) -> DiagonalOperator:
    return DiagonalOperator(scale * torch.linspace(0.1, 5, DIM))


def grown(steps: int, run: LanczosRun | None = None, scale: float = 1.0) -> LanczosRun:
    """A run of so many steps, begun or gone on with in this process."""
    made = run or LanczosRun(start_vector(ProbeRequest(0, 0, "rademacher", steps), operator()))
    made.extend_to(operator(scale).matvec, steps)
    return made


def loaded(folder: Path) -> LanczosRun:
    run = load_run(folder, "x", PLACEMENT, torch.device("cpu"))
    assert run is not None
    return run


def pieces(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*.bin") if not path.name.startswith(".")}


@pytest.mark.parametrize("locks", [True, False], ids=["locks", "no locks"])
def test_two_processes_save_one_run_with_other_boundaries(tmp_path: Path, locks: bool) -> None:
    pair = [("a", "b", 4), ("b", "a", 6)]
    begun = [
        subprocess.Popen(
            [sys.executable, "-c", SAVER, *map(str, (tmp_path, *each, MOST, NUM_ROUNDS, int(locks)))],
            stderr=subprocess.PIPE,
            text=True,
        )
        for each in pair
    ]
    errors = [process.communicate(timeout=120)[1] for process in begun]
    assert [process.returncode for process in begun] == [0, 0], errors
    request = ProbeRequest(0, 0, "rademacher", MOST)
    expected = run_probe(operator(), request).tridiagonal
    for number in range(NUM_ROUNDS):
        runs = GrowingRuns(operator(), tmp_path / f"round-{number}")
        found = runs.run(request).tridiagonal
        assert np.array_equal(found.diagonal, expected.diagonal)
        assert np.array_equal(found.off_diagonal, expected.off_diagonal)
        if locks:
            assert runs.operator.num_matvecs == 1  # nothing was lost; this product showed that the run is this one
            state = saved_runs._State.read(tmp_path / f"round-{number}" / request.name)
            assert state is not None
            assert pieces(tmp_path / f"round-{number}" / request.name) == state.names


def test_what_another_process_writes_just_now_stays(tmp_path: Path) -> None:
    run = grown(4)
    save_run(run, tmp_path, "x")
    writing, written = tmp_path / temporary_name("rows-4-6.bin"), tmp_path / "rows-4-6-0123abcd.bin"
    for path in (writing, written):
        path.touch()
    save_run(grown(8, run), tmp_path, "x")
    assert writing.exists()
    assert written.exists()


def test_what_a_kill_left_goes_after_a_day(tmp_path: Path) -> None:
    run = grown(4)
    save_run(run, tmp_path, "x")
    left = tmp_path / "rows-4-6-0123abcd.bin"
    left.touch()
    os.utime(left, (left.stat().st_mtime - 25 * 3600,) * 2)
    for path in tmp_path.glob("rows-0-4-*.bin"):
        os.utime(path, (path.stat().st_mtime - 25 * 3600,) * 2)  # old, and named
    save_run(grown(8, run), tmp_path, "x")
    assert not left.exists()
    assert loaded(tmp_path).num_lanczos_steps == 8


@pytest.mark.parametrize("locks", [True, False], ids=["locks", "no locks"])
def test_rows_of_a_run_that_rounds_otherwise_are_not_gone_on_with(
    tmp_path: Path, locks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not locks:
        monkeypatch.setattr(saved_runs, "exclusive", lambda *_: nullcontext(False))
    save_run(grown(8, scale=1 + 1e-5), tmp_path, "x")
    before = {name for name in pieces(tmp_path) if name.startswith("rows")}
    run = grown(12)
    save_run(run, tmp_path, "x")
    again = loaded(tmp_path)
    assert all(torch.equal(again.basis.row(index), run.basis.row(index)) for index in range(12))
    # Without a lock another process may be about to name the old rows.
    assert before & pieces(tmp_path) == (set() if locks else before)


def test_a_state_that_is_replaced_while_it_is_read_is_read_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, read, calls = grown(4), saved_runs._read, []
    save_run(run, tmp_path, "x")

    def late(folder: Path, piece: dict[str, object]) -> torch.Tensor:
        calls.append(piece["name"])
        if len(calls) == 1:
            save_run(grown(9, run), tmp_path, "x")
        return read(folder, piece)

    monkeypatch.setattr(saved_runs, "_read", late)
    assert loaded(tmp_path).num_lanczos_steps == 9


def test_a_save_that_fails_gives_its_room_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = grown(4)
    save_run(run, tmp_path, "x")
    before = pieces(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(saved_runs, "write_sealed", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
        with pytest.raises(OSError, match="full"):
            save_run(grown(8, run), tmp_path, "x")
    assert pieces(tmp_path) == before
    assert loaded(tmp_path).num_lanczos_steps == 4


def test_an_interrupt_just_after_the_commit_takes_nothing_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, write = grown(4), saved_runs.write_sealed
    save_run(run, tmp_path, "x")

    def interrupted(*arguments: object) -> None:
        write(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(saved_runs, "write_sealed", interrupted)
        with pytest.raises(KeyboardInterrupt):
            save_run(grown(8, run), tmp_path, "x")
    assert loaded(tmp_path).num_lanczos_steps == 8


def test_a_piece_that_is_gone_is_told(tmp_path: Path) -> None:
    save_run(grown(4), tmp_path, "x")
    for path in tmp_path.glob("vectors-*"):
        path.unlink()
    with pytest.raises(FileRefused, match="is missing or damaged"):
        loaded(tmp_path)


def test_nothing_outside_is_removed_whatever_a_state_names(tmp_path: Path) -> None:
    run, folder = grown(4), tmp_path / "run"
    save_run(run, folder, "x")
    (tmp_path / "mine.bin").touch()
    saved_runs._remove(folder, {"../mine.bin", *pieces(folder)})
    assert (tmp_path / "mine.bin").exists()
    assert pieces(folder) == set()
