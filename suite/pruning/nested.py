"""One network pruned by magnitude to any count and back, in place: one sort, one copy of its prunable weights."""

from types import TracebackType
from typing import Self

import torch
from torch import Tensor, nn

from suite.errors import UserError
from suite.network import prunable_weights
from suite.pruning.masks import Masks, order_of_removal, split_like


class NestedMagnitudeMasks:
    """Prunes a network to growing or falling counts; the masks are nested, and leaving the context restores it.

    At every count the kept weights are those of keep_top_globally on the magnitudes: among equals the lower index
    stays. The order is sorted once, on the network's device, and kept as each weight's place in it.

    Cost: one sort; 4 bytes per weight for its place and one copy of the prunable weights; a count is one pass over
    them, and no network is built.
    """

    def __init__(self, model: nn.Module) -> None:
        """Sort the magnitudes and keep a copy of the weights.

        Raises:
            UserError: the network has no prunable weights, or one is NaN or infinite.
        """
        self._weights = prunable_weights(model)
        self._dense = {name: weight.detach().clone() for name, weight in self._weights.items()}
        for name, weight in self._dense.items():
            if not bool(torch.isfinite(weight).all()):
                raise UserError(f"'{name}' holds NaN or infinite weights: training diverged. Lower its learning_rate.")
        self._places = _places_of_removal(self._dense)
        self.num_prunable = sum(weight.numel() for weight in self._dense.values())

    def prune_to(self, num_removed: int) -> Masks:
        """Set the num_removed smallest weights to zero and all others to what they were; return which are kept.

        Raises:
            ValueError: num_removed is out of range.
        """
        if not 0 <= num_removed <= self.num_prunable:
            raise ValueError(f"num_removed={num_removed} is out of range. Expected: 0 to {self.num_prunable}.")
        masks = {name: places >= num_removed for name, places in self._places.items()}
        with torch.no_grad():
            for name, weight in self._weights.items():
                weight.copy_(torch.where(masks[name], self._dense[name], 0.0))
        return masks

    def __enter__(self) -> Self:
        """Change nothing."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the network all its weights back, bit for bit, whatever happened."""
        self.prune_to(0)


def _places_of_removal(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return each weight's place in the order of removal, 0 for the first to go, int32 where that is enough."""
    magnitudes = torch.cat([weight.abs().flatten() for weight in weights.values()])
    dim = len(magnitudes)
    kind = torch.int32 if dim < 2**31 else torch.int64
    places = torch.empty(dim, dtype=kind, device=magnitudes.device)
    places[order_of_removal(magnitudes)] = torch.arange(dim, dtype=kind, device=magnitudes.device)
    return split_like(places, weights)
