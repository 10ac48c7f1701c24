from collections.abc import Callable
from fractions import Fraction

import pytest
import torch

from suite.problem import Problem
from suite.pruning.contract import Search
from suite.pruning.masks import num_kept
from suite.pruning.methods.imp import Options, find_ticket, previous_num_kept, rewind_step
from suite.study import Recipe
from suite.training.loop import train

Make = Callable[..., Search]


def levels(num_prunable: int, num_keep: int, options: Options) -> list[int]:
    """Return the kept counts of all rounds, the first round first."""
    found = [num_keep]
    while (previous := previous_num_kept(options, num_prunable, found[0])) is not None:
        found.insert(0, previous)
    return found


def test_the_levels_of_resnet20_with_exact_counts() -> None:
    found = levels(268_336, 1_265, Options())
    assert len(found) == 24
    assert {level: found[level - 1] for level in (5, 10, 15, 19, 23, 24)} == {
        5: 87_927,
        10: 28_810,
        15: 9_440,
        19: 3_865,
        23: 1_582,
        24: 1_265,
    }


@pytest.mark.parametrize("fraction", [0.2, 0.1, 0.5, 0.99, 1e-3])
def test_every_round_removes_its_fraction_rounded_up(fraction: float) -> None:
    found = levels(1_000, 7, Options(fraction_per_round=fraction))
    exact = Fraction(str(fraction))
    for before, after in zip([1_000, *found], found[:-1], strict=False):
        assert after == before - -(-before * exact.numerator // exact.denominator)
    assert found[-1] == 7
    assert len(found) < 2 or found[-2] > 7


@pytest.mark.parametrize(("num_keep", "previous"), [(81, None), (80, None), (79, 80), (64, 80), (63, 64), (1, 2)])
def test_the_last_round_removes_what_is_left_to_remove(num_keep: int, previous: int | None) -> None:
    assert previous_num_kept(Options(), 100, num_keep) == previous


def test_sparsities_share_their_rounds() -> None:
    shorter, longer = levels(6_464, 646, Options()), levels(6_464, 129, Options())
    assert shorter[:-1] == longer[: len(shorter) - 1]
    assert (len(shorter), len(longer)) == (11, 18)


def test_the_first_round_prunes_the_dense_network(make_search: Make) -> None:
    search = make_search(30)
    ticket = find_ticket(search, Options())
    magnitudes = torch.cat([search.dense[name].abs().flatten() for name in ticket.masks])
    kept = torch.cat([mask.flatten() for mask in ticket.masks.values()])
    assert magnitudes[kept].min() > magnitudes[~kept].max()


def test_a_later_round_prunes_the_survivors_of_the_one_before(make_search: Make) -> None:
    first = find_ticket(make_search(50), Options())
    search = make_search(30)
    trained = {name: value.flip(0) * first.masks.get(name, 1) for name, value in search.dense.items()}
    second = find_ticket(make_search(30, previous=(trained, first.masks)), Options())
    assert num_kept(second.masks) == 30
    kept, allowed = (torch.cat([each.flatten() for each in t.masks.values()]) for t in (second, first))
    assert not (kept & ~allowed).any()
    magnitudes = torch.cat([trained[name].abs().flatten() for name in second.masks])
    assert magnitudes[kept].min() > magnitudes[allowed & ~kept].max()


def test_survivors_that_trained_to_zero_still_count(make_search: Make) -> None:
    # Masks are stored; a mask read off from zeros would lose these for ever.
    first = find_ticket(make_search(50), Options())
    zeros = {name: torch.zeros_like(value) for name, value in make_search().dense.items()}
    second = find_ticket(make_search(30, previous=(zeros, first.masks)), Options())
    assert num_kept(second.masks) == 30
    assert all(not (second.masks[name] & ~mask).any() for name, mask in first.masks.items())


def test_survivors_are_rewound_bit_by_bit_and_so_is_all_else(make_search: Make) -> None:
    search = make_search(30)
    assert search.rewind is not None
    ticket = find_ticket(search, Options(rewind_step=4))
    for name, value in search.rewind.items():
        expected = value * ticket.masks[name] if name in ticket.masks else value
        assert torch.equal(ticket.start[name], expected)
    assert ticket.start_step == 4
    assert ticket.uses_dense


def test_step_zero_rewinds_to_the_initial_weights(make_search: Make) -> None:
    options = Options(rewind_step=0)
    assert rewind_step(options) is None
    search = make_search(30, rewind=None)
    ticket = find_ticket(search, options)
    assert ticket.start_step == 0
    assert torch.equal(ticket.start["1.weight"], search.initial["1.weight"] * ticket.masks["1.weight"])


@pytest.mark.parametrize("step", [0, 4])
def test_keeping_everything_is_the_dense_training(make_search: Make, recipe: Callable[..., Recipe], step: int) -> None:
    plain = recipe(epochs=3, schedule="cosine", weight_decay=1e-3)  # without momentum there is no state to lose
    search = make_search(72, recipe=plain)
    problem: Problem = search.problem

    def trained(start: dict[str, torch.Tensor], stop_step: int | None = None) -> dict[str, torch.Tensor]:
        problem.load(start)
        train(problem.model, problem.splits, plain, 0, stop_step=stop_step)
        return problem.state()

    dense = trained(search.initial)
    rewind = trained(search.initial, stop_step=step)
    ticket = find_ticket(make_search(72, recipe=plain, dense=dense, rewind=rewind), Options(rewind_step=step))
    problem.load(ticket.start)
    train(problem.model, problem.splits, plain, 0, masks=ticket.masks, start_step=ticket.start_step)
    assert all(torch.equal(value, dense[name]) for name, value in problem.state().items())
