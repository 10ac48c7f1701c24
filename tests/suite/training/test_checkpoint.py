"""What is saved is found again bit by bit; what is not ours, or not whole, is left alone; saving costs little."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from suite.training import checkpoint
from suite.training.checkpoint import Interrupted, Notice, Stage, State, Trainings


class Clock:
    """Seconds that pass when a test says so, and with every save."""

    def __init__(self, save_s: float = 0.0) -> None:
        self.now_s, self.save_s = 0.0, save_s

    def __call__(self) -> float:
        return self.now_s


def tensors(seed: int = 0) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    weights = torch.randn((3, 5), generator=draw)
    return {
        "one bit": torch.tensor([True]),  # what follows begins at an odd byte
        "weights": weights.T,
        "double": weights.double(),
        "half": weights.to(torch.bfloat16),
        "mask": weights > 0,
        "count": torch.tensor(7),
        "nothing": torch.empty((0, 4)),
        "generator": draw.get_state(),
        "odd": torch.tensor([float("nan"), -0.0, float("inf"), 1e-45]),
    }


def stage(folder: Path, name: str = "training", identity: str = "a cell", **more: object) -> Stage:
    found = Trainings(folder / "saved", identity, **more).stage(name)  # type: ignore[arg-type]
    assert found is not None
    return found


def save(where: Stage, step: int, seed: int | None = None) -> None:
    where.trainings.notice.save = True
    where.after(step, lambda at: State(at, tensors(step if seed is None else seed), {"curve": [0.1, float("nan")]}))


def saved_steps(folder: Path, end: str) -> list[int]:
    return sorted(int(path.stem.split("-")[2]) for path in (folder / "saved").glob(f"*{end}"))


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    if list(found) != list(expected):
        return False
    pairs = [(found[name], value.contiguous()) for name, value in expected.items()]
    return all(
        (one.dtype, one.shape) == (other.dtype, other.shape)
        and one.reshape(-1).view(torch.uint8).tolist() == other.reshape(-1).view(torch.uint8).tolist()
        for one, other in pairs
    )


def test_a_state_is_found_as_it_was_saved(tmp_path: Path) -> None:
    save(stage(tmp_path), 12)
    found = stage(tmp_path).latest()
    assert found is not None
    assert found.step == 12
    assert same(dict(found.tensors), tensors(12))
    assert repr(found.facts) == repr({"curve": [0.1, float("nan")]})


def test_the_last_two_states_are_kept_and_the_latest_is_found(tmp_path: Path) -> None:
    for step in (9, 10, 11, 1000):
        save(stage(tmp_path), step)
    assert saved_steps(tmp_path, ".h5") == saved_steps(tmp_path, ".bin") == [11, 1000]
    found = stage(tmp_path).latest()
    assert found is not None
    assert found.step == 1000


def test_trainings_of_one_cell_do_not_meet(tmp_path: Path) -> None:
    save(stage(tmp_path, "search"), 5)
    assert stage(tmp_path).latest() is None
    save(stage(tmp_path), 3)
    assert [found.step for name in ("search", "training") if (found := stage(tmp_path, name).latest())] == [5, 3]


def test_nothing_is_saved_without_a_folder() -> None:
    assert Trainings().stage("training") is None


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [flipped, cut, emptied, Path.unlink])
@pytest.mark.parametrize("end", [".h5", ".bin"])
def test_a_damaged_state_gives_way_to_the_one_before(
    tmp_path: Path, damage: Callable[[Path], None], end: str, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (4, 8):
        save(stage(tmp_path), step)
    (path,) = (tmp_path / "saved").glob(f"training-*-{8:012}-*{end}")
    damage(path)
    with caplog.at_level(logging.WARNING):
        found = stage(tmp_path).latest()
    assert found is not None
    assert found.step == 4
    assert same(dict(found.tensors), tensors(4))
    assert len(caplog.messages) == (0 if (damage, end) == (Path.unlink, ".h5") else 1)
    assert all("\n" not in line and "is not gone on from" in line for line in caplog.messages)
    for step in (5, 6):  # the damaged one, though of a later step, takes no place from good ones
        save(stage(tmp_path), step)
    assert len(list((tmp_path / "saved").glob("*.h5"))) == 2
    again = stage(tmp_path).latest()
    assert again is not None
    assert again.step == 6


def test_states_of_another_cell_or_format_are_not_gone_on_from(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(stage(tmp_path, identity="another cell"), 4)
    with caplog.at_level(logging.WARNING):
        assert stage(tmp_path).latest() is None
    (line,) = caplog.messages
    assert "another cell" in line
    save(stage(tmp_path), 4)
    monkeypatch.setattr(checkpoint, "FORMAT", checkpoint.FORMAT + 1)
    assert stage(tmp_path).latest() is None


def test_a_kill_between_the_two_files_leaves_the_states_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(stage(tmp_path), 4)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_sealed", killed)
        with pytest.raises(KeyboardInterrupt):
            save(stage(tmp_path), 8)
    found = stage(tmp_path).latest()
    assert found is not None
    assert found.step == 4
    assert saved_steps(tmp_path, ".bin") == [4]


def test_an_interrupt_just_after_the_commit_takes_nothing_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = checkpoint.write_sealed

    def interrupted(*arguments: Any) -> None:
        write(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "write_sealed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save(stage(tmp_path), 4)
    found = stage(tmp_path).latest()
    assert found is not None
    assert found.step == 4


def test_what_a_kill_left_goes_after_a_day(tmp_path: Path) -> None:
    save(stage(tmp_path), 4)
    saved = tmp_path / "saved"
    writing, left = saved / f"training-x-{5:012}-0123abcd.bin", saved / f"training-x-{6:012}-0123abcd.bin"
    writing.touch()
    left.touch()
    for path in (left, *saved.glob(f"training-*-{4:012}-*")):  # the last two are named
        os.utime(path, (path.stat().st_mtime - 25 * 3600,) * 2)
    save(stage(tmp_path), 8)
    assert saved_steps(tmp_path, ".bin") == [4, 5, 8]


def num_saves(clock: Clock, monkeypatch: pytest.MonkeyPatch, folder: Path, seconds: int) -> int:
    """Return how often a training of one step a second is saved."""
    saved: list[int] = []

    def write(_: Stage, state: State) -> None:
        saved.append(state.step)
        clock.now_s += clock.save_s

    monkeypatch.setattr(Stage, "_write", write)
    where = stage(folder, clock=clock)
    while clock.now_s < seconds:
        clock.now_s += 1
        where.after(int(clock.now_s), lambda at: State(at, {}, {}))
    return len(saved)


@pytest.mark.parametrize(("save_s", "expected"), [(0.0, 120), (0.1, 119), (6.0, 12)])
def test_saving_takes_at_most_two_percent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save_s: float, expected: int
) -> None:
    found = num_saves(Clock(save_s), monkeypatch, tmp_path, 3600)
    assert expected - 4 <= found <= expected + 1
    assert found * save_s <= 0.021 * 3600


def test_a_short_training_is_never_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert num_saves(Clock(), monkeypatch, tmp_path, 29) == 0


def test_a_full_disk_is_told_and_the_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_tensor", full)
    where = stage(tmp_path, notice=Notice(stop=True))
    for step in range(3):
        where.after(step, lambda at: State(at, tensors(), {}))
    assert len(caplog.messages) == 1
    assert "No space left on device" in caplog.messages[0]


def test_a_stop_saves_and_leaves(tmp_path: Path) -> None:
    where = stage(tmp_path, notice=Notice(stop=True))
    with pytest.raises(Interrupted, match="training at step 7"):
        where.after(7, lambda at: State(at, tensors(), {}))
    found = stage(tmp_path).latest()
    assert found is not None
    assert found.step == 7


def test_the_seconds_of_earlier_attempts_are_counted(tmp_path: Path) -> None:
    clock = Clock()
    first = stage(tmp_path, clock=clock)
    clock.now_s = 40.0
    save(first, 1)
    second = stage(tmp_path, clock=clock)
    assert second.latest() is not None
    assert second.trainings.earlier_s == 40.0
    clock.now_s = 45.0
    assert second.trainings.spent_s == 45.0
