"""The contract of all pruning methods: a new file in suite/pruning/methods is tested here the day it is added."""

import inspect
from collections.abc import Callable
from types import ModuleType

import pytest
import torch

from suite.extensions import available, load
from suite.pruning.contract import Search, Ticket, method_variants
from suite.strict import Settings
from suite.study import Recipe

METHODS = available("suite.pruning.methods")
TOTAL, NUM_LAYERS = 72, 2
Make = Callable[..., Search]


def module_of(method: str) -> ModuleType:
    return load("suite.pruning.methods", method, "method")


def find(method: str, search: Search) -> Ticket:
    module = module_of(method)
    options = method_variants(module, method, module.Options())[0].options
    ticket: Ticket = module.find_ticket(search, options)
    return ticket


def counts(method: str, *wanted: int) -> list[int]:
    return [*wanted] if module_of(method).PRUNES else [TOTAL]


@pytest.mark.parametrize("method", METHODS)
def test_a_method_says_what_it_is(method: str) -> None:
    module = module_of(method)
    assert module.__doc__
    assert module.__doc__.splitlines()[0].endswith(".")
    assert isinstance(module.LABEL, str)
    assert isinstance(module.VERSION, int)
    assert isinstance(module.PRUNES, bool)
    assert issubclass(module.Options, Settings)
    assert list(inspect.signature(module.find_ticket).parameters) == ["search", "options"]
    if hasattr(module, "trainings"):
        assert list(inspect.signature(module.trainings).parameters) == ["recipe", "fine_tune_recipe", "options"]


@pytest.mark.parametrize("method", METHODS)
def test_options_have_defaults_and_survive_json(method: str) -> None:
    options = module_of(method).Options()
    assert type(options).model_validate_json(options.model_dump_json()) == options


def test_labels_and_rows_are_distinct() -> None:
    rows = [row for name in METHODS for row in method_variants(module_of(name), name, module_of(name).Options())]
    assert len({row.row for row in rows}) == len({row.label for row in rows}) == len(rows)


@pytest.mark.parametrize("method", METHODS)
def test_exactly_the_wanted_number_is_kept(method: str, make_search: Make) -> None:
    for num_keep in counts(method, NUM_LAYERS, 7, 36, 71, TOTAL):
        search = make_search(num_keep)
        ticket = find(method, search)
        assert sum(int(mask.sum()) for mask in ticket.masks.values()) == num_keep
        shapes = {name: weight.shape for name, weight in search.problem.prunable.items()}
        assert {name: mask.shape for name, mask in ticket.masks.items()} == shapes
        assert list(ticket.masks) == list(shapes)  # packed masks rely on the order
        assert all(mask.dtype == torch.bool for mask in ticket.masks.values())


@pytest.mark.parametrize("method", METHODS)
def test_exactly_the_wanted_number_is_kept_when_all_weights_are_equal(method: str, make_search: Make) -> None:
    search = make_search(20)
    equal = {name: torch.ones_like(value) for name, value in search.dense.items()}
    for num_keep in counts(method, 20):
        ticket = find(method, make_search(num_keep, dense=equal, initial=equal, rewind=equal))
        assert sum(int(mask.sum()) for mask in ticket.masks.values()) == num_keep


@pytest.mark.parametrize("method", METHODS)
def test_the_start_is_a_whole_state_with_pruned_weights_at_zero(method: str, make_search: Make) -> None:
    search = make_search(20)
    ticket = find(method, search)
    assert list(ticket.start) == list(search.initial)
    for name, mask in ticket.masks.items():
        assert not ticket.start[name][~mask].any()
    assert all(value.device.type == "cpu" for value in ticket.start.values())


@pytest.mark.parametrize("method", METHODS)
def test_the_same_search_finds_the_same_ticket(method: str, make_search: Make) -> None:
    first, again = find(method, make_search(20)), find(method, make_search(20))
    assert all(torch.equal(mask, again.masks[name]) for name, mask in first.masks.items())
    assert all(torch.equal(value, again.start[name]) for name, value in first.start.items())


@pytest.mark.parametrize("method", METHODS)
def test_what_the_method_is_given_is_not_changed(method: str, make_search: Make) -> None:
    search = make_search(20)
    given = {name: getattr(search, name) for name in ("initial", "dense", "rewind")}
    before = {name: {key: value.clone() for key, value in state.items()} for name, state in given.items()}
    ticket = find(method, search)
    for name, state in given.items():
        assert all(torch.equal(value, before[name][key]) for key, value in state.items())
    assert all(parameter.requires_grad for parameter in search.problem.model.parameters())
    assert ticket.start_step >= 0


@pytest.mark.parametrize("method", ["random", "smart_ratio"])
def test_random_tickets_depend_on_neither_weights_nor_data(method: str, make_search: Make) -> None:
    plain, other = make_search(20), make_search(20)
    splits = other.problem.splits.items()
    other.problem.splits = {name: split.part(torch.arange(len(split.targets)).flip(0)) for name, split in splits}
    moved = {name: value + 1 for name, value in other.dense.items()}
    other = make_search(20, problem=other.problem, dense=moved, initial=moved, rewind=moved)
    first, second = find(method, plain), find(method, other)
    assert all(torch.equal(mask, second.masks[name]) for name, mask in first.masks.items())
    assert not first.uses_dense


@pytest.mark.parametrize("method", ["random", "smart_ratio", "rare_gems"])
def test_another_seed_draws_another_mask(method: str, make_search: Make) -> None:
    masks = [find(method, make_search(20, seed=seed)).masks for seed in (0, 1)]
    assert any(not torch.equal(mask, masks[1][name]) for name, mask in masks[0].items())


@pytest.mark.parametrize("method", ["imp", "random", "smart_ratio", "rare_gems"])
def test_what_is_trained_after_pruning_is_trained_by_the_method_s_recipe(
    method: str, make_search: Make, recipe: Callable[..., Recipe]
) -> None:
    mine = recipe(epochs=3, weight_decay=0.25)
    assert find(method, make_search(20, recipe=mine)).recipe == mine
