"""The largest study of all, planned where none of its data is: only the measurements are not real."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from suite.curvature.allocation import Growth
from suite.estimate import rates
from suite.estimate.timing import Timing, Trial
from suite.study import read_study

Espalier = Callable[..., Any]
STEP_S, EVALUATED_S = 1.0, 1e-6  # of each batch; of each example
PER_EXAMPLE = Growth(np.array([0.0]), np.array([2.0**20]))  # so that 2,048 of an evaluation are 2 GiB


def rows(out: str) -> list[list[str]]:
    """Return the table: name, cells, trainings, steps, time, memory, disk."""
    lines = out.splitlines()
    begin = next(index for index, line in enumerate(lines) if line.startswith("Task and work"))
    end = next(index for index, line in enumerate(lines) if line.startswith("total "))
    return [re.split(r" {2,}", line.strip()) for line in lines[begin : end + 1]]


def in_units(text: str, **sizes: float) -> float:
    """Return a printed amount in the smallest unit."""
    number, _, unit = text.replace(",", "").partition(" ")
    return float(number) * sizes.get(unit, 1.0)


def steps(text: str) -> float:
    return in_units(text, k=1e3, M=1e6)


def gib(text: str) -> float:
    return in_units(text, MiB=2**-10, GiB=1)


@pytest.mark.slow
def test_all_of_the_papers(espalier: Espalier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def step_timing(trial: Trial, budget_s: float) -> Timing:
        assert budget_s > 0
        return Timing(STEP_S, trial.recipe.batch_size, trial.recipe.batch_size)

    monkeypatch.setenv("ESPALIER_DATA", str(tmp_path / "none"))
    monkeypatch.setattr(rates, "step_timing", step_timing)
    monkeypatch.setattr(rates, "evaluation_timing", lambda _, most, __: Timing(EVALUATED_S * most, most, most))
    monkeypatch.setattr(rates, "training_growth", lambda _: PER_EXAMPLE)
    monkeypatch.setattr(rates, "evaluation_growth", lambda _: PER_EXAMPLE)
    answer = espalier("run", "paper-baselines", "--dry-run")
    assert answer.code == 0, answer
    assert not (tmp_path / "none").exists()
    out = answer.out
    assert out.splitlines()[0] == "study paper-baselines: 1920 cells; left to do:"
    assert max(map(len, out.splitlines())) <= 100

    heads, *table = rows(out)
    assert heads == ["Task and work", "Cells", "Trainings", "Steps", "Time", "Memory", "Disk"]
    total = table.pop()
    assert total[:3] == ["total", "1920", "1890"]
    _, tasks = read_study("paper-baselines")
    of_tasks = [row for row in table if row[0] in tasks]
    assert [row[0] for row in of_tasks] == list(tasks)
    assert len(tasks) == 10
    for column, amount, rel in ((1, int, 0), (2, int, 0), (3, steps, 0.01), (6, gib, 0.01)):
        assert amount(total[column]) == pytest.approx(sum(amount(row[column]) for row in of_tasks), rel=rel)
    assert all(gib(row[5]) > 2 for row in table)
    assert gib(total[5]) == max(gib(row[5]) for row in of_tasks)

    # 45,000 examples in batches of 128: 352 steps in an epoch. Three seeds, six sparsities, 29 rounds of IMP from step
    # 1,000 on; two trainings of Rare Gems in 150 epochs; dense networks with three recipes, and up to step 1,000.
    begin = [row[0] for row in table].index("resnet20-cifar10") + 1
    by_hand = {
        "dense": (15, 12, 3 * (352 * (160 + 200 + 150) + 1000)),
        "lomp": (36, 18, 18 * 352 * 160),
        "imp": (87, 87, 87 * (352 * 160 - 1000)),
        "rare_gems": (18, 36, 36 * 352 * 150),
        "smart_ratio": (18, 18, 18 * 352 * 160),
        "random": (18, 18, 18 * 352 * 160),
    }
    for name, cells, trainings, printed, *_ in table[begin : begin + len(by_hand)]:
        assert (int(cells), int(trainings)) == by_hand[name][:2]
        assert steps(printed) == pytest.approx(by_hand[name][2], rel=0.005)

    for name in ("mnist", "cifar10", "cifar100", "tinyimagenet"):
        assert f"data not prepared: {name}, espalier data prepare {name} --from " in out
    assert re.search(r"longest chain: \S+ h \(1 dense, 24 imp\)", out)
    hours = float(re.findall(r"one cell at a time: ([\d,]+) h", out)[0].replace(",", ""))
    assert hours == pytest.approx(steps(total[3]) * STEP_S / 3600, rel=0.01)
    operations, gpu_hours = re.findall(r"; (\S+) operations\nat 20 TFLOP/s sustained: (\S+) GPU-hours", out)[0]
    assert float(gpu_hours) == pytest.approx(float(operations) / 20e12 / 3600, rel=0.05)
    assert f"disk: {total[6]} in cells" in out
