from collections.abc import Callable

import torch

from suite.pruning.contract import Search
from suite.pruning.methods import dense


def test_the_trained_network_is_reported_as_it_is(make_search: Callable[..., Search]) -> None:
    search = make_search(72)
    ticket = dense.find_ticket(search, dense.Options())
    assert all(mask.all() for mask in ticket.masks.values())
    assert all(torch.equal(value, search.dense[name]) for name, value in ticket.start.items())
    assert (ticket.recipe, ticket.search_steps, ticket.uses_dense) == (None, 0, True)


def test_it_ignores_the_sparsity() -> None:
    assert not dense.PRUNES
