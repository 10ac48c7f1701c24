from collections.abc import Callable
from itertools import pairwise

import pytest
import torch

from suite.pruning.contract import Search
from suite.pruning.masks import num_kept
from suite.pruning.methods import lomp
from suite.pruning.methods.lomp import Options, find_ticket, variants
from suite.study import Recipe

Make = Callable[..., Search]


def test_the_largest_magnitudes_of_all_layers_together_stay(make_search: Make) -> None:
    search = make_search(20)
    ticket = find_ticket(search, Options(fine_tune=False))
    magnitudes = torch.cat([search.dense[name].abs().flatten() for name in ticket.masks])
    kept = torch.cat([mask.flatten() for mask in ticket.masks.values()])
    assert magnitudes[kept].min() > magnitudes[~kept].max()


def test_masks_are_nested_in_sparsity(make_search: Make) -> None:
    masks = [find_ticket(make_search(count), Options()).masks for count in range(1, 73)]
    for small, large in pairwise(masks):
        assert all(bool((small[name] <= large[name]).all()) for name in small)


def test_masks_ignore_a_common_scale(make_search: Make) -> None:
    plain = make_search(20)
    scaled = make_search(20, dense={name: 8 * value for name, value in plain.dense.items()})
    first, second = find_ticket(plain, Options()), find_ticket(scaled, Options())
    assert all(torch.equal(mask, second.masks[name]) for name, mask in first.masks.items())


def test_the_trained_survivors_and_biases_go_on(make_search: Make) -> None:
    search = make_search(20)
    ticket = find_ticket(search, Options(fine_tune=False))
    for name, value in search.dense.items():
        expected = value * ticket.masks[name] if name in ticket.masks else value
        assert torch.equal(ticket.start[name], expected)
    assert ticket.uses_dense


def test_without_fine_tuning_nothing_is_trained(make_search: Make) -> None:
    assert find_ticket(make_search(20), Options(fine_tune=False)).recipe is None


def test_fine_tuning_follows_the_plain_recipe(make_search: Make) -> None:
    search = make_search(20)
    assert find_ticket(search, Options(fine_tune=True)).recipe == search.fine_tune_recipe
    shorter = find_ticket(search, Options(fine_tune=True, fine_tune_epochs=2)).recipe
    assert shorter == search.fine_tune_recipe.model_copy(update={"epochs": 2})


def test_a_shorter_fine_tuning_has_its_schedule_within(make_search: Make, recipe: Callable[..., Recipe]) -> None:
    stepped = recipe(epochs=200, schedule="step", milestones=(60, 120, 160), gamma=0.5, warmup_epochs=5)
    options = Options(fine_tune=True, fine_tune_epochs=5)
    found = find_ticket(make_search(20, fine_tune_recipe=stepped), options).recipe
    assert found is not None
    assert (found.epochs, found.milestones, found.warmup_epochs) == (5, (2, 3, 4), 0)
    assert [planned.recipe for planned in lomp.trainings(stepped, stepped, options)] == [found]


@pytest.mark.parametrize(
    ("fine_tune", "rows"),
    [(None, ["lomp", "lomp_fine_tuned"]), (False, ["lomp"]), (True, ["lomp_fine_tuned"])],
)
def test_rows_with_and_without_fine_tuning(fine_tune: bool | None, rows: list[str]) -> None:
    found = variants(Options(fine_tune=fine_tune, fine_tune_epochs=3))
    assert [row.row for row in found] == rows
    for row in found:
        tuned = row.row == "lomp_fine_tuned"
        assert row.options == Options(fine_tune=tuned, fine_tune_epochs=3 if tuned else None)


def test_the_plain_row_does_not_depend_on_how_long_the_other_is_tuned() -> None:
    # Else the same network would be trained and stored twice.
    assert variants(Options(fine_tune_epochs=3))[0] == variants(Options(fine_tune_epochs=9))[0]


def test_all_weights_equal_is_still_exact(make_search: Make) -> None:
    tied = {name: torch.full_like(value, -0.5) for name, value in make_search(20).dense.items()}
    ticket = find_ticket(make_search(20, dense=tied), Options())
    assert num_kept(ticket.masks) == 20
    assert int(next(iter(ticket.masks.values())).sum()) == 20  # the lower index wins: all in the first layer


def test_the_label_is_the_paper_s() -> None:
    assert lomp.LABEL == "LOMP"
