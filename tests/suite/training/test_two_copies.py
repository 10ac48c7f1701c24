"""Two copies of one cell save its training in one folder: neither destroys what the other has, locks or none."""

import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from suite.training import checkpoint
from suite.training.checkpoint import Interrupted, Stage, State, Trainings

NUM_STEPS = 60
COPY = """
import sys, time
from contextlib import nullcontext
from pathlib import Path

import torch

from suite.training import checkpoint
from suite.training.checkpoint import State, Trainings

checkpoint.SHORTEST_S, checkpoint.MOST_TIME = 0.0, 1.0
root, me, other, stride, num_steps, locks = Path(sys.argv[1]), *sys.argv[2:4], *map(int, sys.argv[4:])
if not locks:
    checkpoint.exclusive = lambda *_: nullcontext(False)
(root / me).touch()
end_s = time.monotonic() + 30
while not (root / other).exists():
    assert time.monotonic() < end_s, "the other copy has failed"
    time.sleep(0.0005)
begin = 0
for step in range(stride, num_steps + 1, stride):
    stage = Trainings(root / "saved", "a cell").stage("training")
    found = stage.latest()  # as a copy that has just begun
    step_found = found.step if found else 0
    assert step_found >= begin, (begin, step_found)  # what was saved once is not lost
    assert not found or found.tensors["weights"].eq(found.step).all()
    begin = max(step, step_found)
    stage.after(begin, lambda at: State(at, {"weights": torch.full((999,), float(at))}, {"by": me}))
"""


def state(step: int) -> State:
    return State(step, {"weights": torch.full((9,), float(step))}, {})


def copy(folder: Path, identity: str = "a cell") -> Stage:
    found = Trainings(folder, identity).stage("training")
    assert found is not None
    return found


def save(where: Stage, step: int) -> None:
    where.trainings.notice.save = True
    where.after(step, state)


def step_of(where: Stage) -> int:
    found = where.latest()
    return 0 if found is None else found.step


@pytest.mark.parametrize("locks", [True, False], ids=["locks", "no locks"])
def test_two_processes_lose_nothing(tmp_path: Path, locks: bool) -> None:
    begun = [
        subprocess.Popen(
            [sys.executable, "-c", COPY, *map(str, (tmp_path, *pair, NUM_STEPS, int(locks)))],
            stderr=subprocess.PIPE,
            text=True,
        )
        for pair in (("a", "b", 2), ("b", "a", 3))
    ]
    errors = [process.communicate(timeout=120)[1] for process in begun]
    assert [process.returncode for process in begun] == [0, 0], errors
    assert not any("is not gone on from" in line for line in errors), errors
    assert step_of(copy(tmp_path / "saved")) == NUM_STEPS
    names = [path.name for path in (tmp_path / "saved").iterdir() if not path.name.startswith(".")]
    assert len(names) == 2 * checkpoint.NUM_KEPT


def test_the_same_step_saved_twice_is_whole_whoever_was_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One copy has written its numbers, and the other saves the whole step before the first commits."""
    monkeypatch.setattr(checkpoint, "exclusive", lambda *_: nullcontext(False))
    write, calls = checkpoint.write_tensor, []

    def late(*arguments: Any) -> dict[str, Any]:
        calls.append(1)
        piece = write(*arguments)
        if len(calls) == 1:  # other bits, as of a machine that rounds otherwise
            Stage.after(other, 7, lambda at: State(at, {"weights": torch.zeros(9)}, {}))
        return piece

    monkeypatch.setattr(checkpoint, "write_tensor", late)
    other = copy(tmp_path)
    other.trainings.notice.save = True
    save(copy(tmp_path), 7)
    whole = list(tmp_path.glob("*.h5"))
    assert len(whole) == len(calls) == 2
    for path in whole:
        assert copy(tmp_path)._read(path).step == 7


def test_a_copy_that_is_far_behind_leaves_all_the_same_when_it_is_told_to(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (100, 110):
        save(copy(tmp_path), step)
    late = copy(tmp_path)
    late.trainings.notice.stop = True
    with pytest.raises(Interrupted):
        late.after(10, state)
    assert step_of(late) == 110
    assert not caplog.messages


def test_copies_on_other_machines_keep_to_themselves(tmp_path: Path) -> None:
    one, other = copy(tmp_path, "a cell on one GPU"), copy(tmp_path, "a cell on another")
    for step in (100, 110):
        save(other, step)
    save(one, 10)
    assert [step_of(one), step_of(other)] == [10, 110]
    for step in (11, 12, 13):
        save(one, step)
    assert [step_of(one), step_of(other)] == [13, 110]


def test_states_that_go_while_they_are_read_are_looked_for_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (1, 2):
        save(copy(tmp_path), step)
    read, calls = checkpoint.read_tensor, []

    def late(*arguments: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 1:
            for step in (3, 4):
                save(copy(tmp_path), step)
        return read(*arguments)

    monkeypatch.setattr(checkpoint, "read_tensor", late)
    assert step_of(copy(tmp_path)) == 4
    assert not caplog.messages


def unreadable(*_: object) -> None:
    raise OSError(5, os.strerror(5))


@pytest.mark.parametrize("what", ["suite.training.checkpoint.read_tensor", "data.hdf5.seal.open"])
def test_what_cannot_be_read_just_now_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    save(copy(tmp_path), 1)
    with monkeypatch.context() as patch:
        patch.setattr(what, unreadable, raising=False)
        assert step_of(copy(tmp_path)) == 0
    assert len(caplog.messages) == 1
    assert step_of(copy(tmp_path)) == 1
