"""Masks: exact counts, deterministic ties, enforcement, and their packed form."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

Masks = dict[str, Tensor]  # prunable weight's name -> bool tensor of its shape, True = kept


def keep_top(scores: Tensor, num_keep: int, tie_break: torch.Generator | None = None) -> Tensor:
    """Keep exactly num_keep entries with the largest scores.

    Args:
        scores: shape (n,), no NaN, larger = keep.
        num_keep: between 0 and n.
        tie_break: when given, equal scores are ordered by a permutation drawn from it; else the lower index wins.

    Returns:
        bool tensor (n,) with num_keep True entries.

    Raises:
        ValueError: num_keep is out of range.

    Cost: one selection, O(n); with tie_break also one permutation.
    """
    if not 0 <= num_keep <= scores.numel():
        raise ValueError(f"num_keep={num_keep} is out of range. Expected: 0 <= num_keep <= {scores.numel()}.")
    shuffle = None if tie_break is None else torch.randperm(scores.numel(), generator=tie_break)
    if num_keep in (0, scores.numel()):
        return torch.full(scores.shape, num_keep > 0, device=scores.device)
    # Selecting one value takes a tenth of the time that ordering all of them does, and leaves the same mask.
    least = torch.kthvalue(scores, scores.numel() - num_keep + 1).values
    mask, ties = scores > least, scores == least
    num_wanted = num_keep - int(mask.sum())
    if shuffle is None or num_wanted == int(ties.sum()):
        chosen = torch.nonzero(ties).flatten()[:num_wanted]
    else:
        shuffle = shuffle.to(scores.device)
        chosen = shuffle[ties[shuffle]][:num_wanted]
    mask[chosen] = True
    return mask


def order_of_removal(magnitudes: Tensor) -> Tensor:
    """Return the indices of a flat tensor (n,) in the order in which growing sparsity removes its entries.

    The first go first: the smallest, and among equals the higher index, so that what is left after any number of
    removals is what keep_top keeps.

    Cost: one sort, 16 * n bytes for a moment.
    """
    return torch.argsort(magnitudes, descending=True, stable=True).flip(0)


def keep_top_globally(
    scores: Mapping[str, Tensor], num_keep: int, within: Masks | None = None, tie_break: torch.Generator | None = None
) -> Masks:
    """Keep the num_keep largest scores over all tensors together.

    Args:
        scores: one tensor per prunable weight, larger = keep.
        num_keep: how many entries stay in all.
        within: only entries that these masks keep can stay (a pruned weight stays pruned).
        tie_break: see keep_top.

    Raises:
        ValueError: a score is NaN (the layer is named), or fewer than num_keep entries can stay.
    """
    for name, score in scores.items():
        if torch.isnan(score).any():
            raise ValueError(f"The scores of '{name}' hold NaN. Likely: the weights diverged in training.")
    flat = torch.cat([score.detach().flatten() for score in scores.values()])
    if within is not None:
        allowed = torch.cat([within[name].flatten() for name in scores])
        if int(allowed.sum()) < num_keep:
            raise ValueError(f"num_keep={num_keep} exceeds the {int(allowed.sum())} weights that are left.")
        flat = flat.masked_fill(~allowed, -torch.inf)
    return split_like(keep_top(flat, num_keep, tie_break), scores)


def split_like(flat: Tensor, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Cut a flat tensor (n,) into the names and shapes of the given tensors."""
    pieces = torch.split(flat, [tensor.numel() for tensor in tensors.values()])
    return {name: piece.view(tensor.shape) for (name, tensor), piece in zip(tensors.items(), pieces, strict=True)}


def ones_like(tensors: Mapping[str, Tensor]) -> Masks:
    """Return masks that keep everything."""
    return {name: torch.ones(tensor.shape, dtype=torch.bool, device=tensor.device) for name, tensor in tensors.items()}


def num_kept(masks: Masks) -> int:
    """Return the exact number of kept weights."""
    return sum(int(mask.sum()) for mask in masks.values())


def masked(state: Mapping[str, Tensor], masks: Masks) -> dict[str, Tensor]:
    """Return a copy of a state dict with the pruned weights at zero."""
    return {
        name: torch.where(masks[name], value, 0.0) if name in masks else value.clone() for name, value in state.items()
    }


def pack(masks: Masks) -> np.ndarray:
    """Return all masks, in their order, as packed bits (uint8, eight weights per byte, last byte padded with 0)."""
    flat = torch.cat([mask.flatten() for mask in masks.values()])
    return np.packbits(flat.cpu().numpy())


def unpack(bits: np.ndarray, tensors: Mapping[str, Tensor]) -> Masks:
    """Return the masks that pack made, with the names and shapes of the given tensors."""
    total = sum(tensor.numel() for tensor in tensors.values())
    return split_like(torch.from_numpy(np.unpackbits(bits, count=total).astype(bool)), tensors)
