"""One operator over several processes, each with a shard of the data: their products are added up in the first.

The first process (rank 0) runs the algorithm alone and hands each vector round; the others multiply it by their shard
and keep nothing. So no two processes have to agree bit for bit, and a Krylov basis lies in one memory only.
"""

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from suite.curvature.operators import CountedOperator, SymmetricOperator
from suite.process_group import PeerLost, completed

__all__ = ["PeerLost", "ShardableSource", "SummedOperator", "serve"]


@runtime_checkable
class ShardableSource(Protocol):
    """An OperatorSource whose operator can be built in parts."""

    def build(self) -> SymmetricOperator:
        """Return the whole operator."""
        ...

    def build_shard(self, rank: int, size: int) -> SymmetricOperator:
        """Return the part of one of `size` processes, rank counted from 0; the products of all parts add up."""
        ...


class SummedOperator(CountedOperator):
    """The sum of the shards of all processes, for rank 0, while the others are in `serve`.

    Args:
        shard: this process's part. What it offers beside products (its weights, say) is offered here as well.
        group: a process group whose backend takes tensors on the shard's device.

    Raises:
        PeerLost: by a product, when another process has ended or does not answer within the group's timeout.

    Cost: per product that of the largest shard, and a broadcast and a reduction of the vectors.
    """

    def __init__(self, shard: SymmetricOperator, group: ProcessGroup) -> None:
        super().__init__(shard.dim, shard.dtype, shard.device)
        self._shard = shard
        self._group = group
        self._in_step = True  # False inside a product, and for ever after one that failed

    def release(self) -> None:
        """Let the others return from `serve`; after a product that failed, nothing reaches them any more."""
        if self._in_step:
            _hand_round(self._group, torch.zeros(1, dtype=torch.int64, device=self.device))

    def __getattr__(self, name: str) -> Any:
        """Look up in the shard what a sum has no own word for."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._shard, name)

    def _products(self, vectors: Tensor) -> Tensor:
        self._in_step = False
        _hand_round(self._group, torch.tensor([vectors.shape[1]], device=self.device))
        # A copy with a fixed layout: the vectors are a view of the caller's memory, which a broadcast may not touch.
        shared = vectors.clone(memory_format=torch.contiguous_format)
        _hand_round(self._group, shared)
        total = _add_up(self._group, self._shard.matmat(shared))
        self._in_step = True
        return total


def serve(shard: SymmetricOperator, group: ProcessGroup) -> int:
    """Multiply by a shard whatever vectors rank 0 hands round, until it calls `release`; for all other ranks.

    Returns:
        How many products were computed; a matrix product counts one per column.

    Raises:
        PeerLost: another process has ended, or rank 0 asked for nothing within the group's timeout.
    """
    served = 0
    while True:
        header = torch.zeros(1, dtype=torch.int64, device=shard.device)
        _hand_round(group, header)
        num_columns = int(header)
        if num_columns == 0:
            return served
        vectors = torch.empty((shard.dim, num_columns), dtype=shard.dtype, device=shard.device)
        _hand_round(group, vectors)
        _add_up(group, shard.matmat(vectors))
        served += num_columns


def _hand_round(group: ProcessGroup, tensor: Tensor) -> None:
    """Overwrite a tensor by that of rank 0."""
    completed(lambda: group.broadcast(tensor, 0))


def _add_up(group: ProcessGroup, products: Tensor) -> Tensor:
    """Return the sum over all ranks in rank 0, and nothing of use elsewhere."""
    products = products.contiguous()
    completed(lambda: group.reduce(products, 0))
    return products
