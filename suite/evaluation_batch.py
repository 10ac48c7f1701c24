"""How many examples an evaluation takes at once: as many as the network alone allows, never as memory happens to be.

The last digits of a loss hang on how examples were split up, so the same network is evaluated the same way everywhere.
"""

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

LARGEST_BATCH = 2048
# In the largest tensor between two layers: 1 GiB of float32, and some three times that are live. ResNet-50 as it comes
# has 2^20 for each image of 64 x 64 and takes 256 at once: 3.3 GiB instead of 26. Of our tasks alexnet-cifar10 takes
# 512 at once and resnet50-cifar100 1,024; the others take LARGEST_BATCH.
MOST_NUMBERS = 2**28
_known: "WeakKeyDictionary[nn.Module, dict[tuple[int, ...], int]]" = WeakKeyDictionary()


def evaluation_batch(model: nn.Module, inputs: Tensor) -> int:
    """Return the largest power of two, up to LARGEST_BATCH, with which no tensor has more than MOST_NUMBERS numbers.

    Args:
        model: as it is evaluated.
        inputs: shape (n, *shape), n at least 1: only the first of them is looked at.

    Cost: once for each network, a forward pass of two examples and one of three.
    """
    known, shape = _known.setdefault(model, {}), tuple(inputs.shape[1:])
    if shape not in known:
        fitting = MOST_NUMBERS // max(1, _widest(model, inputs[:1]))
        known[shape] = min(LARGEST_BATCH, 1 << max(0, fitting.bit_length() - 1))
    return known[shape]


@torch.no_grad()
def _widest(model: nn.Module, one: Tensor) -> int:
    """Return how many numbers each example adds to the tensor that grows most; weights do not grow."""
    sizes = []
    for count in (2, 3):  # torch computes a lone example in another way
        with (
            torch.random.fork_rng(devices=[one.device] if one.is_cuda else []),
            torch.autocast(one.device.type, enabled=False),  # of both alike it would cast the weights of one
            _Sizes() as seen,
        ):
            model(one.repeat(count, *(1,) * (one.ndim - 1)))
        sizes.append(seen.found)
    return max((three - two for two, three in zip(*sizes, strict=False)), default=0)


class _Sizes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes down the number of numbers in whatever torch computes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[int] = []

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: object, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Compute, and take note."""
        del types
        result = func(*args, **(kwargs or {}))
        tensors = result if isinstance(result, tuple | list) else (result,)
        self.found.append(max((each.numel() for each in tensors if isinstance(each, Tensor)), default=0))
        return result
