"""Several processes that train one network together: torch's DistributedDataParallel over shards of each batch.

Every process runs the same training on the same data. Its gradient of a batch is that of its own shard; torch adds the
gradients of all shards up while they are computed, and from there on every process does the same step. So weights,
masks and what the optimiser keeps are equal on all of them, bit by bit, and none has to be told.

Batch normalisation sees each shard alone, as torch's own does, and its running statistics are those of the first
process's shards: before each pass torch hands the first one's buffers round.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.nn.parallel import DistributedDataParallel

from suite.process_group import completed
from suite.seeds import derived_seed
from suite.study import Recipe

Forward = Callable[[Tensor], Tensor]
LEAST = 2  # examples of a shard: batch normalisation cannot do with one


@dataclass(frozen=True)
class Ranks:
    """One of the processes that train one network together.

    Attributes:
        rank: of this process, 0 to size - 1; rank 0 alone tells, saves and commits.
        size: number of processes.
        group: of torch, for tensors on `device`.
        device: that this process computes on.
    """

    rank: int
    size: int
    group: ProcessGroup
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Return whether this is the process that tells, saves and commits."""
        return self.rank == 0

    def shard(self, num_examples: int) -> slice:
        """Return which examples of a batch are this process's own: a contiguous part, at most one larger than others.

        A batch of less than LEAST examples for each, as the last one of an epoch may be, is everybody's: no process
        stands idle or sees a single example that way.
        """
        if num_examples < LEAST * self.size:
            return slice(0, num_examples)
        each, rest = divmod(num_examples, self.size)
        begin = self.rank * each + min(self.rank, rest)
        return slice(begin, begin + each + (self.rank < rest))

    def num_computed(self, num_examples: int) -> int:
        """Return how many examples of a batch all processes compute together; those of everybody count for each."""
        return num_examples if num_examples >= LEAST * self.size else self.size * num_examples

    def shared(self, model: nn.Module, forward: Forward) -> DistributedDataParallel:
        """Return a pass of a network after which gradients are means over all processes.

        Args:
            model: holds what is trained, on `device`; its buffers are handed round.
            forward: computes with it.
        """
        return DistributedDataParallel(
            _Pass(model, forward),
            process_group=self.group,
            # Weights that no loss reaches are allowed. And gradients are then added up in an order that is fixed from
            # the first step on: else that of a training that goes on would differ for a step, and its bits with it.
            find_unused_parameters=True,
        )

    def summed(self, value: Tensor) -> Tensor:
        """Return the sum over all processes, the same bits in each; a GPU is not waited for."""
        total = value.detach().clone()
        completed(lambda: self.group.allreduce(total))
        return total

    def of_first(self, content: bytes) -> bytes:
        """Return the first process's content; what the others give is not looked at."""
        length = torch.tensor([len(content)], device=self.device)
        completed(lambda: self.group.broadcast(length, 0))
        numbers = torch.empty(int(length), dtype=torch.uint8, device=self.device)
        if self.is_first and content:
            numbers.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
        if len(numbers):
            completed(lambda: self.group.broadcast(numbers, 0))
        return numbers.cpu().numpy().tobytes()

    @torch.no_grad()
    def align(self, model: nn.Module) -> None:
        """Set all buffers to the first process's, and make sure that all have the same weights.

        Raises:
            RuntimeError: they have not: something in this training differs from process to process.

        Cost: a broadcast of the buffers, and of one number for each weight tensor.
        """
        buffers = [*model.buffers()]
        if buffers:
            content = torch.cat([_bits(buffer) for buffer in buffers])
            completed(lambda: self.group.broadcast(content, 0))
            sizes = [each.numel() * each.element_size() for each in buffers]
            for buffer, bits in zip(buffers, torch.split(content, sizes), strict=True):
                buffer.copy_(bits.clone().view(buffer.dtype).view(buffer.shape))
        own = torch.stack([_bits(weight).sum(dtype=torch.int64) for weight in model.parameters()])
        first = own.clone()
        completed(lambda: self.group.broadcast(first, 0))
        if not torch.equal(own, first):
            raise RuntimeError(
                f"The weights of process {self.rank} differ from those of process 0: something in this training is not "
                "the same in each process. Train with data_parallel = 1."
            )

    def seed_layers(self, seed: int, step: int) -> None:
        """Let layers that draw, such as dropout, draw anew in each step, and otherwise in each process."""
        torch.manual_seed(derived_seed(seed, "layers", self.rank, step))


class _Pass(nn.Module):
    """A network and how it is computed, in the form that torch shares out."""

    def __init__(self, model: nn.Module, forward: Forward) -> None:
        super().__init__()
        self.model, self.computed = model, forward

    def forward(self, inputs: Tensor) -> Tensor:
        return self.computed(inputs)

    def named_buffers(self, *args: Any, **options: Any) -> Iterator[tuple[str, Tensor]]:
        """Ask the network itself: one that holds another one says here which buffers change."""
        return self.model.named_buffers(*args, **options)


def check_ranks(recipe: Recipe, ranks: Ranks | None) -> None:
    """Make sure that a training has as many processes as its recipe says, for its numbers depend on them.

    Raises:
        ValueError: it has not.
    """
    size = 1 if ranks is None else ranks.size
    if recipe.data_parallel != size:
        raise ValueError(
            f"data_parallel={recipe.data_parallel} in a training of {size} processes. Expected: the same number; give "
            "train the ranks of the cell's context."
        )


def _bits(value: Tensor) -> Tensor:
    """Return the bytes of a tensor, shape (n,), uint8."""
    return value.detach().contiguous().reshape(-1).view(torch.uint8)


def data_parallel(recipes: Sequence[Recipe]) -> int:
    """Return the number of processes of a cell that trains with these recipes.

    Raises:
        ValueError: they differ.
    """
    sizes = {recipe.data_parallel for recipe in recipes} or {1}
    if len(sizes) > 1:
        raise ValueError(f"data_parallel = {sorted(sizes)} within one cell. Expected: one number.")
    return sizes.pop()
