from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import torch

from suite.pruning.contract import Search
from suite.pruning.methods.random import Options, find_ticket

Make = Callable[..., Search]


def test_masks_of_one_seed_are_nested_in_sparsity(make_search: Make) -> None:
    masks = [find_ticket(make_search(count), Options()).masks for count in (5, 20, 60)]
    for small, large in pairwise(masks):
        assert all(bool((small[name] <= large[name]).all()) for name in small)


def test_every_weight_has_the_same_chance(make_search: Make) -> None:
    search, num_seeds = make_search(18), 2000
    kept = torch.zeros(72)
    for seed in range(num_seeds):
        masks = find_ticket(replace(search, seed=seed), Options()).masks
        kept += torch.cat([mask.flatten() for mask in masks.values()])
    # Chi-square with 71 degrees of freedom, for 18 of 72 without replacement: mean 71, standard deviation 12.
    expected, variance = num_seeds * 18 / 72, num_seeds * (18 / 72) * (54 / 72) * 72 / 71
    statistic = float(((kept - expected) ** 2 / variance).sum())
    assert 71 - 4 * 12 < statistic < 71 + 4 * 12


def test_training_begins_at_the_initial_weights(make_search: Make) -> None:
    search = make_search(20)
    ticket = find_ticket(search, Options())
    for name, value in search.initial.items():
        expected = value * ticket.masks[name] if name in ticket.masks else value
        assert torch.equal(ticket.start[name], expected)
    assert (ticket.recipe, ticket.start_step, ticket.search_steps) == (search.recipe, 0, 0)
