from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from suite.pruning.allocation import RatioLaw, smart_ratio_counts
from suite.pruning.contract import Search
from suite.pruning.methods import smart_ratio
from suite.pruning.methods.smart_ratio import Options, find_ticket

Make = Callable[..., Search]


def test_layers_keep_their_counts(make_search: Make) -> None:
    for num_keep in (2, 10, 20, 60, 72):
        masks = find_ticket(make_search(num_keep), Options()).masks
        assert [int(mask.sum()) for mask in masks.values()] == smart_ratio_counts([48, 24], num_keep)


def test_counts_by_hand(make_search: Make) -> None:
    # The classifier keeps round(0.3 * 24) = 7 of 24, the only other layer the rest.
    masks = find_ticket(make_search(20), Options()).masks
    assert {name: int(mask.sum()) for name, mask in masks.items()} == {"1.weight": 13, "3.weight": 7}


def test_a_vgg_has_a_law_of_its_own(make_search: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    laws: list[str] = []

    def counts(sizes: list[int], num_keep: int, law: RatioLaw) -> list[int]:
        laws.append(law)
        return smart_ratio_counts(sizes, num_keep, law)

    monkeypatch.setattr(smart_ratio, "smart_ratio_counts", counts)
    for options in (Options(), Options(law="vgg")):
        find_ticket(make_search(20), options)
    assert laws == ["resnet", "vgg"]


def test_positions_are_uniform_within_a_layer(make_search: Make) -> None:
    search, num_seeds = make_search(20), 2000
    kept = torch.zeros(8, 6)
    for seed in range(num_seeds):
        kept += find_ticket(replace(search, seed=seed), Options()).masks["1.weight"]
    # Chi-square with 47 degrees of freedom, for 13 of 48 without replacement: mean 47, standard deviation 9.7.
    expected, variance = num_seeds * 13 / 48, num_seeds * (13 / 48) * (35 / 48) * 48 / 47
    statistic = float(((kept - expected) ** 2 / variance).sum())
    assert 47 - 4 * 9.7 < statistic < 47 + 4 * 9.7


def test_training_begins_at_the_initial_weights(make_search: Make) -> None:
    search = make_search(20)
    ticket = find_ticket(search, Options())
    for name, value in search.initial.items():
        expected = value * ticket.masks[name] if name in ticket.masks else value
        assert torch.equal(ticket.start[name], expected)
    assert (ticket.recipe, ticket.start_step, ticket.search_steps) == (search.recipe, 0, 0)
