"""The comparison of accuracies runs, and its differences are those of the same seeds."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from tests.performance import bench_training_accuracy
from tests.performance.bench_training_accuracy import difference_text


@pytest.mark.slow  # loader processes begin
def test_it_runs_and_writes_where_it_is_told(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        bench_training_accuracy.main(["--smoke", "--threads", "1", "--seeds", "2", "--out", str(tmp_path)])
    torch.set_num_threads(threads)
    found = json.loads((tmp_path / "training_accuracy.json").read_text())
    assert [len(values) for values in found["details"]["accuracies"]["resnet20"].values()] == [2, 2, 2]
    assert found["rows"][0][0] == "resnet20, 1 epochs of 256"
    assert "±" in found["rows"][0][2]


def test_the_interval_is_that_of_scipy() -> None:
    differences = np.array([1.0, -2.0, 0.5, 0.1])
    low, high = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    assert difference_text(differences) == f"{differences.mean():+.1f} ± {(high - low) / 2:.1f}"
    assert difference_text(np.array([3.25])) == "+3.2"
