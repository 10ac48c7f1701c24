from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data import read_dataset
from suite.cells.limit import Config, tables
from suite.datasets import training_splits
from suite.limits.removal import MagnitudeOrder
from suite.network import build_model
from suite.plan import Cell
from suite.problem import as_state, evaluate
from suite.splits import Split


@pytest.fixture
def cell(committed: Any) -> Any:
    (found,) = committed.cells("limit")
    return found


def rows_of(committed: Any, cell: Cell) -> list[dict[str, Any]]:
    return tables(Config.model_validate(cell.config, strict=False), committed.record(cell))["limits"]


def test_predictions_from_slq_agree_with_the_exact_ones(committed: Any, cell: Cell) -> None:
    found, (oracle,) = committed.record(cell).metrics, committed.cells("dense_hessian")
    exact = committed.record(oracle).metrics
    for limit in ("gaussian_width", "statistical_dimension"):
        for factor in ("0.5", "1", "2"):
            predicted = found[f"slq/{limit}/{factor}/sparsity_limit"].value
            error = found[f"slq/{limit}/{factor}/probe_standard_error"].value
            difference = predicted - exact[f"dense_hessian/{limit}/{factor}/sparsity_limit"].value
            assert abs(difference) < 4 * error + 1 / 72


def test_measured_limits_are_the_largest_that_meet_their_criterion(committed: Any, cell: Cell) -> None:
    record = committed.record(cell)
    tolerance = record.metrics["loss_tolerance_nats"].value
    dense = committed.store.load(cell.inputs["dense"])
    most_loss = dense.metrics["train_loss"].value + tolerance
    least_accuracy = dense.metrics["validation_accuracy"].value - 0.005
    for way in ("one_shot", "fine_tuned"):
        sparsities = record.curves[f"{way}_sparsity"]
        assert np.array_equal(sparsities, np.unique(sparsities))
        by_loss = sparsities[record.curves[f"{way}_train_loss"] <= most_loss]
        assert record.metrics[f"measured/{way}"].value == by_loss.max(initial=0.0)
        by_accuracy = sparsities[record.curves[f"{way}_validation_accuracy"] >= least_accuracy]
        assert record.metrics[f"measured/{way}_accuracy"].value == by_accuracy.max(initial=0.0)


def test_one_shot_pruning_is_the_plain_removal_of_the_smallest(committed: Any, cell: Cell, tiny_data: Path) -> None:
    record, splits = committed.record(cell), training_splits(tiny_data, read_dataset(tiny_data).sha256, "cpu")
    state = as_state(committed.store.load(cell.inputs["dense"]).arrays_under("weights"))
    model = build_model(Config.model_validate(cell.config, strict=False).model)
    weights = torch.cat([state[name].flatten() for name in ("1.weight", "3.weight")]).double().numpy()
    order = MagnitudeOrder.of(weights)
    sparsities, losses = record.curves["one_shot_sparsity"], record.curves["one_shot_train_loss"]
    for sparsity, loss in list(zip(sparsities, losses, strict=True))[::7]:
        pruned = weights.copy()
        pruned[order.order[: order.num_removed(float(sparsity))]] = 0
        flat = torch.from_numpy(pruned).float()
        model.load_state_dict(state | {"1.weight": flat[:48].view(8, 6), "3.weight": flat[48:].view(3, 8)})
        assert evaluate(model, splits["train"]).loss == pytest.approx(loss, rel=1e-12)


def test_a_search_asks_for_few_evaluations_and_counts_its_steps(committed: Any, cell: Cell) -> None:
    record = committed.record(cell)
    assert len(record.curves["one_shot_sparsity"]) <= 2 * cell.config["max_evaluations"]
    # One epoch of 5 batches per fine-tuned evaluation; both criteria share what was evaluated.
    assert record.cost["gradient_steps"] == 5 * len(record.curves["fine_tuned_sparsity"])


def test_fine_tuning_reaches_at_least_as_far_at_full_removal(committed: Any, cell: Cell) -> None:
    curves = committed.record(cell).curves
    assert curves["one_shot_sparsity"][-1] == curves["fine_tuned_sparsity"][-1] == 1.0
    assert curves["fine_tuned_train_loss"][-1] <= curves["one_shot_train_loss"][-1]  # biases are trained on


def test_the_rows_of_the_report(committed: Any, cell: Cell) -> None:
    rows = rows_of(committed, cell)
    record = committed.record(cell)
    tolerance = record.metrics["loss_tolerance_nats"].value
    predicted = [row for row in rows if row["source"] == "slq"]
    measured = [row for row in rows if row["source"] == "measured"]
    assert sorted(row["limit"] for row in measured) == [
        "fine_tuned",
        "fine_tuned_accuracy",
        "one_shot",
        "one_shot_accuracy",
    ]
    assert len(predicted) == 6
    for row in rows:
        assert row["loss_tolerance_nats"] == row["tolerance_factor"] * tolerance
        assert 0 <= row["sparsity_limit"] <= 1
    assert {row["curvature"] for row in predicted} == {"abs"}


def test_the_tolerance_is_the_spread_of_batch_losses(committed: Any, cell: Cell, tiny_data: Path) -> None:
    inputs, targets, _ = training_splits(tiny_data, read_dataset(tiny_data).sha256, "cpu")["train"]
    model = build_model(Config.model_validate(cell.config, strict=False).model)
    model.load_state_dict(as_state(committed.store.load(cell.inputs["dense"]).arrays_under("weights")))
    batches = [evaluate(model, Split(inputs[part], targets[part])).loss for part in (slice(0, 128), slice(128, None))]
    found = committed.record(cell).metrics["loss_tolerance_nats"].value
    assert found == pytest.approx(abs(batches[0] - batches[1]) / 2, rel=1e-9)


def test_analysing_a_network_leaves_its_cell_alone(committed: Any, cell: Cell) -> None:
    assert committed.store.is_committed(cell.inputs["dense"])
    assert cell.inputs["spectrum"] == committed.cells("spectrum")[0].id
