"""Speed and remaining time are those of this process, and are told within long epochs as well."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from suite.splits import Split
from suite.study import Recipe
from suite.training import pace
from suite.training.checkpoint import Interrupted, Notice, Trainings
from suite.training.loop import train
from suite.training.pace import Pace


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now_s = 50.0

    def __call__(self) -> float:
        return self.now_s


def test_what_an_earlier_process_did_says_nothing_about_the_speed() -> None:
    clock = Clock()
    found = Pace(900, 1000, clock)
    for _ in range(10):
        clock.now_s += 0.5
        found.count(128)
    assert found.is_due
    assert found.text(910) == "256 images/s, 45 s left"


def test_the_speed_is_that_of_the_last_interval_and_the_rest_that_of_all() -> None:
    clock = Clock()
    found = Pace(0, 100, clock)
    clock.now_s += 30.0  # ten slow steps, and an evaluation
    found.count(1000)
    assert found.text(10) == "33.33 images/s, 4.5 min left"
    clock.now_s += 10.0
    found.restart()
    assert not found.is_due
    clock.now_s += 2.0
    found.count(1000)
    assert found.text(20) == "500 images/s, 2.8 min left"
    assert found.text(100) == "500 images/s"


def test_a_long_epoch_is_told_of(recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "OFTEN_S", 0.0)
    told: list[tuple[float, str]] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Linear(2, 2)
    data = {name: Split(torch.zeros(40, 2), torch.zeros(40, dtype=torch.int64)) for name in ("train", "validation")}
    made = recipe(epochs=2, batch_size=10, learning_rate=10.0)
    train(model, data, made, 0, progress=lambda *event: told.append(event))
    assert [fraction for fraction, _ in told] == [step / 8 for step in range(1, 9)]
    assert told[0][1].startswith("epoch 1 of 2, loss ")
    assert " images/s, " in told[0][1]
    assert told[5][1].split(", ")[2] == "validation accuracy 100.0%"
    assert told[5][1].startswith("epoch 2 of 2, ")


def test_a_resumed_training_tells_where_it_is(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    data = {"train": Split(torch.zeros(40, 2), torch.zeros(40, dtype=torch.int64))}

    def model() -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            return nn.Linear(2, 2)

    stage = Trainings(tmp_path, "p", Notice(stop=True)).stage("training")
    with pytest.raises(Interrupted):
        train(model(), data, recipe(epochs=2, batch_size=10), 0, stage=stage)
    told: list[float] = []
    stage = Trainings(tmp_path, "p").stage("training")
    train(model(), data, recipe(epochs=2, batch_size=10), 0, stage=stage, progress=lambda done, _: told.append(done))
    assert told == [0.125, 0.5, 1.0]
