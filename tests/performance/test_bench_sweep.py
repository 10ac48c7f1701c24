import json
from pathlib import Path

import numpy as np
import pytest

from suite.limits.sweep import Sweep
from suite.network import build_model, model_spec, num_prunable
from tests.performance import bench_sweep
from tests.performance.bench_sweep import NETWORKS, errors


def test_differences_and_errors_are_told_apart() -> None:
    curve = Sweep(
        num_removed=np.arange(3),
        evaluated=np.array([True, False, True]),
        values={"train_loss": np.array([1.0, 1.5, 2.0]), "train_accuracy": np.array([0.9, 0.7, 0.5])},
        num_evaluations=2,
        is_within_tolerance=True,
        estimated_errors={},
        largest_steps={},
    )
    seen = {
        0: {"train_loss": 1.0 + 1e-7, "train_accuracy": 0.9},
        1: {"train_loss": 1.2, "train_accuracy": 0.75},
    }
    assert errors(curve, seen) == pytest.approx({"evaluated": 1e-7, "accuracy": 0.05, "loss": 0.25})


def test_the_small_network_has_the_weights_that_it_says() -> None:
    spec = model_spec(NETWORKS["small CNN"][0], {}, (3, 32, 32), 10)
    assert num_prunable(spec) == 33_712
    assert build_model(spec).eval()


@pytest.mark.slow
def test_the_benchmark_of_the_sweep_runs(tmp_path: Path) -> None:
    few = ["--examples", "256", "--test-examples", "64", "--epochs", "1", "--points", "50", "--evaluations", "30"]
    where = ["--folder", str(tmp_path / "weights"), "--out", str(tmp_path), "--threads", "1"]
    bench_sweep.main([*few, "--timed", "3", "--checked", "3", "--rounds", "1", "--networks", "small CNN", *where])
    found = json.loads((tmp_path / "sweep.json").read_text())["details"]["small CNN"]
    assert found["errors"]["evaluated"] <= 1e-6
    assert found["num_compared"] >= 3
