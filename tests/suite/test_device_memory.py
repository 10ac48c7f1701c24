"""A full GPU fails its cell with one line that says what to change; other errors stay what they are."""

from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch

from suite.attempt import attempt
from suite.device_memory import lack_of_memory_named
from suite.errors import UserError
from suite.planner import make_plan
from suite.store import Store
from suite.study import read_study

FULL = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.5 GiB of which 1.1 GiB is free."
)
BEGIN = "The GPU has no memory left: CUDA out of memory. Tried to allocate 2.00 GiB. "
FEWER = "fewer cells on it at a time (--workers, or cells_at_once of a Slurm profile)"


def line(config: dict[str, Any], error: Exception | None = None) -> str:
    with pytest.raises(UserError) as found, lack_of_memory_named(config):
        raise error or torch.OutOfMemoryError(FULL)
    assert "\n" not in str(found.value)
    return str(found.value)


@pytest.mark.parametrize(
    ("recipes", "half", "now"),
    [
        ([{"batch_size": 128}], 64, 128),
        ([{"batch_size": 128, "micro_batch_size": None, "data_parallel": 1}], 64, 128),
        ([{"batch_size": 128, "micro_batch_size": 32}], 16, 32),
        ([{"batch_size": 128, "data_parallel": 4}], 16, 32),
        ([{"batch_size": 3, "data_parallel": 2}], 1, 2),
        ([{"batch_size": 2}, {"batch_size": 64}], 32, 64),
    ],
)
def test_what_a_training_can_make_smaller(recipes: list[dict[str, Any]], half: int, now: int) -> None:
    found = line({f"recipe_{index}": each for index, each in enumerate(recipes)} | {"seed": 0, "model": {"name": "x"}})
    assert found == (
        f"{BEGIN}Set training.micro_batch_size to {half} or less, by which steps and evaluations hold fewer than the "
        f"{now} examples of now, or compute {FEWER}."
    )


@pytest.mark.parametrize("config", [{}, {"seed": 0}, {"recipe": {"batch_size": 64, "micro_batch_size": 1}}])
def test_what_cannot_be_made_smaller(config: dict[str, Any]) -> None:
    assert line(config) == f"{BEGIN}Compute {FEWER}, or on a larger one."


@pytest.mark.parametrize("text", ["cuDNN error: CUDNN_STATUS_ALLOC_FAILED", "CUDA error: out of memory\nhints follow"])
def test_libraries_that_allocate_by_themselves(text: str) -> None:
    assert line({}, RuntimeError(text)).startswith(f"The GPU has no memory left: {text.splitlines()[0]}. Compute ")


@pytest.mark.parametrize("error", [RuntimeError("size mismatch"), ValueError(FULL), UserError("mend it")])
def test_other_errors_are_left_alone(error: Exception) -> None:
    with pytest.raises(type(error)) as found, lack_of_memory_named({"recipe": {"batch_size": 8}}):
        raise error
    assert found.value is error


@pytest.mark.parametrize(
    "where", ["suite.training.stepper.Stepper.step", "suite.training.loop.evaluate", "suite.cells.dense.evaluate"]
)
def test_a_cell_fails_with_the_line(
    tiny_study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def full(*_: object, **__: object) -> NoReturn:
        raise torch.OutOfMemoryError(FULL)

    cell = make_plan(*read_study(str(tiny_study), ["methods=['random']", "options={}", "analyses=[]"])).cells[0]
    store = Store(tmp_path / "out")
    store.prepare()
    monkeypatch.setattr(where, full)
    outcome = attempt(cell, store.folder)
    assert (outcome.status, outcome.attempts) == ("failed", 1)
    assert outcome.message == line(cell.config)
    assert "training.micro_batch_size to 16 or less" in outcome.message
    assert not store.is_committed(cell.id)
    assert "OutOfMemoryError" in store.log_path(cell.id).read_text()
    monkeypatch.undo()
    assert attempt(cell, store.folder).status == "done"
