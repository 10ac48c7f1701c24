from itertools import pairwise

import numpy as np
import pytest
import torch

from suite.pruning.masks import keep_top, keep_top_globally, masked, num_kept, ones_like, pack, split_like, unpack

SHAPES = {"first": (3, 5), "second": (2, 2, 3)}  # 27 weights: the last byte is not full


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scores(seed: int = 0) -> dict[str, torch.Tensor]:
    stream = draw(seed)
    return {name: torch.randn(shape, generator=stream) for name, shape in SHAPES.items()}


def flat(masks: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([mask.flatten() for mask in masks.values()])


@pytest.mark.parametrize("num_keep", [0, 1, 13, 26, 27])
def test_exactly_the_largest_stay(num_keep: int) -> None:
    found = flat(keep_top_globally(scores(), num_keep))
    everything = flat(scores())
    assert int(found.sum()) == num_keep
    assert set(everything[found].tolist()) == set(sorted(everything.tolist(), reverse=True)[:num_keep])


@pytest.mark.parametrize("num_keep", [-1, 28])
def test_a_count_that_cannot_be_kept(num_keep: int) -> None:
    with pytest.raises(ValueError, match=rf"num_keep={num_keep} is out of range\. Expected: 0 <= num_keep <= 27\."):
        keep_top(torch.zeros(27), num_keep)


@pytest.mark.parametrize("num_keep", [0, 1, 500, 999, 1000])
@pytest.mark.parametrize("tied", [0.0, -0.0, 3.5, float("inf"), float("-inf")])
def test_among_equals_the_lower_index_wins(num_keep: int, tied: float) -> None:
    assert torch.equal(keep_top(torch.full((1000,), tied), num_keep), torch.arange(1000) < num_keep)


def ordered(scores: torch.Tensor, num_keep: int, tie_break: torch.Generator | None = None) -> torch.Tensor:
    """The mask by its definition: a stable order of all scores, or of all of them shuffled."""
    shuffle = torch.arange(len(scores)) if tie_break is None else torch.randperm(len(scores), generator=tie_break)
    order = torch.argsort(scores[shuffle], descending=True, stable=True)
    return torch.zeros(len(scores), dtype=torch.bool).index_fill(0, shuffle[order[:num_keep]], True)


@pytest.mark.parametrize("levels", [1, 2, 5, 1000])
@pytest.mark.parametrize("seed", range(3))
def test_selecting_leaves_the_mask_that_ordering_leaves(levels: int, seed: int) -> None:
    tied = torch.randint(-levels, levels, (300,), generator=draw(seed)).float()
    tied[::7] = -torch.inf
    tied[::11] = torch.inf
    for num_keep in (0, 1, 7, 150, 299, 300):
        assert torch.equal(keep_top(tied, num_keep), ordered(tied, num_keep))
        first, second = draw(seed), draw(seed)
        assert torch.equal(keep_top(tied, num_keep, first), ordered(tied, num_keep, second))
        assert torch.equal(first.get_state(), second.get_state())  # what is drawn next does not change either


def test_signed_zeros_are_equal() -> None:
    assert keep_top(torch.tensor([-0.0, 0.0, -0.0, 0.0]), 2).tolist() == [True, True, False, False]


def test_a_few_ties_at_the_threshold() -> None:
    assert keep_top(torch.tensor([1.0, 2.0, 1.0, 3.0, 1.0]), 3).tolist() == [True, True, False, True, False]


def test_a_seeded_tie_break_keeps_the_count_and_spreads() -> None:
    tied = torch.zeros(1000)
    found = keep_top(tied, 300, draw(1))
    assert int(found.sum()) == 300
    assert torch.equal(found, keep_top(tied, 300, draw(1)))
    assert not torch.equal(found, keep_top(tied, 300, draw(2)))
    assert 100 < int(found[:500].sum()) < 200  # 150 on average, standard deviation 7


def test_a_tie_break_changes_nothing_where_there_are_no_ties() -> None:
    assert torch.equal(keep_top(flat(scores()), 9, draw(1)), keep_top(flat(scores()), 9))


@pytest.mark.parametrize("tie_break", [False, True])
def test_masks_are_nested_in_their_counts(tie_break: bool) -> None:
    tied = {name: score.round() for name, score in scores().items()}
    kept = [flat(keep_top_globally(tied, count, tie_break=draw(1) if tie_break else None)) for count in range(28)]
    assert all(bool((small <= large).all()) for small, large in pairwise(kept))


def test_what_is_pruned_stays_pruned() -> None:
    before = keep_top_globally(scores(0), 15)
    after = keep_top_globally(scores(1), 10, within=before)
    assert num_kept(after) == 10
    assert not (flat(after) & ~flat(before)).any()
    inside = flat(scores(1))[flat(before)].sort(descending=True).values
    assert set(flat(scores(1))[flat(after)].tolist()) == set(inside[:10].tolist())


def test_more_than_is_left_cannot_be_kept() -> None:
    with pytest.raises(ValueError, match=r"num_keep=16 exceeds the 15 weights that are left\."):
        keep_top_globally(scores(1), 16, within=keep_top_globally(scores(0), 15))


def test_nan_scores_are_refused_by_layer() -> None:
    broken = scores()
    broken["second"][0, 1, 2] = torch.nan
    with pytest.raises(ValueError, match=r"The scores of 'second' hold NaN\. Likely: the weights diverged"):
        keep_top_globally(broken, 3)


def test_a_flat_tensor_is_cut_into_names_and_shapes() -> None:
    pieces = split_like(torch.arange(27), scores())
    assert {name: tuple(piece.shape) for name, piece in pieces.items()} == SHAPES
    assert pieces["second"].flatten().tolist() == list(range(15, 27))


def test_masking_copies_and_touches_nothing_else() -> None:
    state = scores() | {"bias": torch.ones(3)}
    masks = keep_top_globally(scores(), 9)
    found = masked(state, masks)
    for name, mask in masks.items():
        assert torch.equal(found[name][mask], state[name][mask])
        assert not found[name][~mask].any()
        assert not torch.signbit(found[name][~mask]).any()  # pruned is +0, whatever the sign was
    assert torch.equal(found["bias"], state["bias"])
    found["bias"].zero_()
    assert state["bias"].all()


def test_packed_masks_come_back() -> None:
    masks = keep_top_globally(scores(3), 11)
    bits = pack(masks)
    assert bits.dtype == np.uint8
    assert len(bits) == 4
    found = unpack(bits, scores())
    assert list(found) == list(masks)
    assert all(torch.equal(found[name], masks[name]) and found[name].dtype == torch.bool for name in masks)
    assert int(np.unpackbits(bits).sum()) == 11  # padding is zero


def test_masks_that_keep_everything() -> None:
    assert num_kept(ones_like(scores())) == 27
