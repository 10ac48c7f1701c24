from typing import Any

import numpy as np
import pytest
import torch

from suite.cells.prune import Config, tables
from suite.plan import Cell
from suite.pruning.masks import num_kept, unpack
from suite.record import Record

TOTAL = 72


def masks_of(record: Record) -> dict[str, np.ndarray]:
    weights = {name: array for name, array in record.arrays_under("weights").items() if name.endswith("weight")}
    bits = np.unpackbits(record.arrays["mask"], count=TOTAL).astype(bool)
    pieces = np.split(bits, np.cumsum([array.size for array in weights.values()])[:-1])
    return {name: piece.reshape(array.shape) for (name, array), piece in zip(weights.items(), pieces, strict=True)}


def prune_cells(committed: Any) -> list[Cell]:
    found: list[Cell] = committed.cells("prune")
    return found


def by_method(committed: Any, method: str, num_keep: int) -> list[Record]:
    return [committed.record(cell) for cell in committed.cells("prune", method=method, num_keep=num_keep)]


def test_exactly_the_planned_number_of_weights_is_left(committed: Any) -> None:
    for cell in prune_cells(committed):
        record, num_keep = committed.record(cell), cell.config["num_keep"]
        masks = masks_of(record)
        assert sum(int(mask.sum()) for mask in masks.values()) == num_keep
        for name, mask in masks.items():
            assert not record.arrays[f"weights/{name}"][~mask].any()
            assert record.metrics[f"num_kept_by_layer/{name}"].value == mask.sum()
        assert record.metrics["num_kept"].value == num_keep
        assert record.metrics["sparsity"].value == 1 - num_keep / TOTAL


def test_the_stored_mask_is_read_as_it_was_packed(committed: Any) -> None:
    record = committed.record(prune_cells(committed)[1])
    weights = {name: torch.from_numpy(record.arrays[f"weights/{name}"]) for name in ("1.weight", "3.weight")}
    found = unpack(record.arrays["mask"], weights)
    assert num_kept(found) == record.metrics["num_kept"].value
    assert all(np.array_equal(found[name].numpy(), mask) for name, mask in masks_of(record).items())


def test_the_dense_row_is_the_dense_network(committed: Any) -> None:
    (cell,) = committed.cells("prune", method="dense")
    record, dense = committed.record(cell), committed.store.load(cell.inputs["dense"])
    assert record.metrics["test_loss"] == dense.metrics["test_loss"]
    assert record.cost["gradient_steps"] == 0
    assert (record.cost["total_gradient_steps"], record.cost["total_num_trainings"]) == (15, 1)
    assert record.cost["total_train_flops"] == dense.cost["train_flops"]


def test_lomp_without_fine_tuning_costs_its_dense_training_alone(committed: Any) -> None:
    plain, tuned = sorted(by_method(committed, "lomp", 36), key=lambda record: record.cost["gradient_steps"])
    assert (plain.cost["gradient_steps"], plain.cost["total_gradient_steps"]) == (0, 15)
    assert (tuned.cost["gradient_steps"], tuned.cost["total_gradient_steps"]) == (15, 30)
    assert tuned.cost["total_num_trainings"] == 2
    assert np.array_equal(plain.arrays["mask"], tuned.arrays["mask"])
    assert plain.curves == {}
    assert len(tuned.curves["test_accuracy"]) == 3


def test_imp_adds_up_its_rounds(committed: Any) -> None:
    # 72 -> 43 -> 25 -> 18 by 40 % at a time; each round trains 15 - 3 steps.
    rounds = [by_method(committed, "imp", kept)[0] for kept in (43, 25, 18)]
    assert [record.cost["gradient_steps"] for record in rounds] == [12, 12, 12]
    assert [record.cost["total_gradient_steps"] for record in rounds] == [27, 39, 51]
    assert [record.cost["total_num_trainings"] for record in rounds] == [2, 3, 4]
    flops = [record.cost["train_flops"] for record in rounds]
    dense = 3 * 480 * 2 * TOTAL
    assert [record.cost["total_train_flops"] for record in rounds] == pytest.approx(
        [dense + flops[0], dense + flops[0] + flops[1], dense + sum(flops)]
    )
    for record, kept in zip(rounds, (43, 25, 18), strict=True):
        assert record.cost["train_flops"] == pytest.approx(3 * 12 * 32 * 2 * kept, rel=1e-6)


def test_imp_s_rounds_are_nested_and_their_seconds_add_up(committed: Any) -> None:
    first, second = (by_method(committed, "imp", kept)[0] for kept in (43, 25))
    assert all((masks_of(second)[name] <= mask).all() for name, mask in masks_of(first).items())
    earlier = first.timings["wall_s"] + first.timings["ancestors_wall_s"]
    assert second.timings["ancestors_wall_s"] == earlier


def test_rare_gems_pays_for_its_search_and_no_dense_network(committed: Any) -> None:
    (record,) = by_method(committed, "rare_gems", 36)
    assert (record.cost["gradient_steps"], record.cost["total_gradient_steps"]) == (30, 30)
    assert record.cost["total_num_trainings"] == 2
    assert record.timings["ancestors_wall_s"] == 0


@pytest.mark.parametrize("method", ["random", "smart_ratio"])
def test_random_tickets_cost_one_training(committed: Any, method: str) -> None:
    (record,) = by_method(committed, method, 18)
    assert record.cost["total_gradient_steps"] == 15
    assert record.cost["total_num_trainings"] == 1
    kept = {name: int(mask.sum()) for name, mask in masks_of(record).items()}
    assert record.cost["total_train_flops"] == pytest.approx(3 * 480 * 2 * sum(kept.values()), rel=1e-6)


def test_what_trained_says_in_which_precision(committed: Any) -> None:
    kinds = ("dense", "prune", "limit", "spectrum", "sweep")
    for cell in (cell for kind in kinds for cell in committed.cells(kind)):
        record = committed.record(cell)
        expected = "float32" if record.cost.get("gradient_steps") else None  # "auto", on a CPU
        assert record.environment.get("training_precision") == expected
        assert record.environment["device"] == "cpu"


def test_the_row_of_the_report(committed: Any) -> None:
    cell = committed.cells("prune", method="imp", num_keep=25)[0]
    record = committed.record(cell)
    (row,) = tables(Config.model_validate(cell.config, strict=False), record)["rows"]
    assert (row["num_prunable"], row["num_kept"]) == (TOTAL, 25)
    assert row["gradient_steps"] == record.cost["total_gradient_steps"]
    assert row["wall_s"] == record.timings["wall_s"] + record.timings["ancestors_wall_s"]
    dense = committed.store.load(cell.inputs["dense"])
    assert row["dense_test_accuracy"] == dense.metrics["test_accuracy"].value
