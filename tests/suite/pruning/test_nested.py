from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from suite.errors import UserError
from suite.limits.removal import MagnitudeOrder
from suite.network import prunable_weights
from suite.pruning.masks import keep_top_globally, masked
from suite.pruning.nested import NestedMagnitudeMasks


def bits(model: nn.Module) -> dict[str, bytes]:
    return {name: value.detach().numpy().tobytes() for name, value in model.state_dict().items()}


def copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def magnitudes(model: nn.Module) -> dict[str, Tensor]:
    return {name: weight.detach().abs() for name, weight in prunable_weights(model).items()}


def test_every_count_has_the_masks_of_a_fresh_sort(network: Any) -> None:
    model = network.model
    dense, scores = copied(model), magnitudes(model)
    generator = torch.Generator().manual_seed(0)
    with NestedMagnitudeMasks(model) as masks:
        counts = torch.randint(0, masks.num_prunable + 1, (20,), generator=generator).tolist()
        for num_removed in [*counts, 0, masks.num_prunable]:  # up and down
            masks.prune_to(num_removed)
            expected = masked(dense, keep_top_globally(scores, masks.num_prunable - num_removed))
            assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())


def test_ties_are_broken_as_everywhere(small_mlp: Any) -> None:
    model = small_mlp.model
    generator = torch.Generator().manual_seed(1)
    for weight in prunable_weights(model).values():
        weight.data = torch.randint(-2, 3, weight.shape, generator=generator).float()
    dense, scores = copied(model), magnitudes(model)
    order = MagnitudeOrder.of(torch.cat([dense[name].flatten() for name in scores]).numpy())
    with NestedMagnitudeMasks(model) as masks:
        for num_removed in range(masks.num_prunable + 1):
            found = masks.prune_to(num_removed)
            kept = keep_top_globally(scores, masks.num_prunable - num_removed)
            assert found.keys() == kept.keys()
            assert all(torch.equal(mask, kept[name]) for name, mask in found.items())
            expected = masked(dense, kept)
            assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
            removed = torch.cat([(weight - expected[name]).flatten() for name, weight in dense.items() if name in kept])
            assert np.array_equal(order.removed(num_removed), removed.numpy())


def test_masks_are_nested_and_their_counts_exact(small_mlp: Any) -> None:
    model = small_mlp.model
    before = set(range(sum(weight.numel() for weight in prunable_weights(model).values())))
    with NestedMagnitudeMasks(model) as masks:
        for num_removed in range(masks.num_prunable + 1):
            masks.prune_to(num_removed)
            flat = torch.cat([weight.detach().flatten() for weight in prunable_weights(model).values()])
            kept = set(torch.nonzero(flat).flatten().tolist())
            assert len(kept) == masks.num_prunable - num_removed
            assert kept <= before
            before = kept


def test_the_network_is_given_back_bit_for_bit(network: Any) -> None:
    weight = next(iter(prunable_weights(network.model).values()))
    weight.data.flatten()[0] = -0.0
    before = bits(network.model)
    with NestedMagnitudeMasks(network.model) as masks:
        masks.prune_to(masks.num_prunable // 2)
        assert bits(network.model) != before
    assert bits(network.model) == before


def test_it_is_given_back_after_an_error(small_mlp: Any) -> None:
    before = bits(small_mlp.model)

    def interrupted() -> None:
        with NestedMagnitudeMasks(small_mlp.model) as masks:
            masks.prune_to(5)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert bits(small_mlp.model) == before


def test_parameters_stay_the_same_objects(small_mlp: Any) -> None:
    before = [(id(weight), weight.data_ptr()) for weight in small_mlp.model.parameters()]
    with NestedMagnitudeMasks(small_mlp.model) as masks:
        masks.prune_to(5)
    assert [(id(weight), weight.data_ptr()) for weight in small_mlp.model.parameters()] == before


@pytest.mark.parametrize("num_removed", [-1, 67])
def test_counts_out_of_range_are_refused(num_removed: int, small_mlp: Any) -> None:
    with NestedMagnitudeMasks(small_mlp.model) as masks, pytest.raises(ValueError, match="Expected: 0 to 66"):
        masks.prune_to(num_removed)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_diverged_are_named(value: float, small_mlp: Any) -> None:
    small_mlp.model[2].weight.data[0, 0] = value
    with pytest.raises(UserError, match=r"'2\.weight' holds NaN or infinite weights"):
        NestedMagnitudeMasks(small_mlp.model)
