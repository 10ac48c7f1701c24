"""What a computation holds at each moment, as the allocators tell it, and what it will hold with more examples.

Tensors, gradients on their way, kernels' scratch: all of it passes through torch's allocators, which report to whoever
listens. A pass over more examples allocates the same things in the same order, each on a straight line in the number
of examples. So two small passes tell what is live at every moment of a large one, and its peak, to the byte.
"""

import ctypes
import itertools
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

_M_MMAP_THRESHOLD = -3  # of mallopt(3)
_MMAP_BYTES = 1 << 20


class Peak(NamedTuple):
    """Live bytes at the moment when they are most: what does not grow with the examples, and what does."""

    fixed: int
    growing: int


@dataclass(frozen=True, eq=False)
class Growth:
    """Bytes live after each allocation and release of a computation, as straight lines in its number of examples.

    Attributes:
        fixed: shape (moments,), with no example.
        per_example: shape (moments,).
    """

    fixed: NDArray[np.float64]
    per_example: NDArray[np.float64]

    @classmethod
    def measured(cls, live: Callable[[int], list[int]], size: int) -> "Growth":
        """Return the lines through two computations, of size and of twice as many examples.

        Where the two do not allocate in step, because a kernel was chosen by size, only their peaks and what they
        leave are joined.

        Args:
            live: number of examples -> live bytes at each moment, see live_bytes.
            size: at least 1.
        """
        small, large = live(size), live(2 * size)
        if len(small) != len(large):
            small, large = ([max(each), each[-1]] for each in (small, large))
        lower, upper = np.array(small, dtype=np.float64), np.array(large, dtype=np.float64)
        slope = (upper - lower) / size
        return cls(lower - size * slope, slope)

    def peak(self, num_examples: int) -> Peak:
        """Return the parts of the peak with so many examples."""
        at = int(np.argmax(self.fixed + num_examples * self.per_example))
        return Peak(round(self.fixed[at]), round(num_examples * self.per_example[at]))

    @property
    def left_per_example(self) -> float:
        """What each example leaves behind when all is done."""
        return float(self.per_example[-1])


def live_bytes(computation: Callable[[], object], device: torch.device) -> list[int]:
    """Return the bytes that are live after each allocation and release, above those of before; begins with 0.

    What the computation returns is released when all has been counted.

    Raises:
        ValueError: this thread is being profiled already, by torch's profiler.
    """
    with _profiled() as events:
        result = computation()
    del result
    on_gpu = device.type == "cuda"
    changes = [each.cuda_memory_usage() if on_gpu else each.cpu_memory_usage() for each in events]
    return list(itertools.accumulate((int(change) for change in changes if change), initial=0))


@contextmanager
def _profiled() -> Iterator[list[Any]]:
    """Yield a list that holds, on leaving, the allocations and releases of this thread and its backward passes.

    By the profiler's old door: the new one reports the same events, after seconds, and writes to stderr.
    """
    events: list[Any] = []
    state = torch.autograd.ProfilerState.CPU  # type: ignore[attr-defined]
    settings = torch._C._profiler._ExperimentalConfig()
    config = torch.autograd.ProfilerConfig(  # type: ignore[attr-defined]
        state, False, True, False, False, False, settings
    )
    try:
        torch.autograd._enable_profiler_legacy(config)  # type: ignore[attr-defined]
    except RuntimeError as error:
        raise ValueError(
            "torch's profiler watches this thread, and the memory plan needs it. Expected: none, or one begun later."
        ) from error
    try:
        yield events
    finally:
        threads = torch.autograd._disable_profiler_legacy()  # type: ignore[attr-defined]
        found: list[Any] = [event for thread in threads for event in thread]
        begin = next(event for event in found if event.name() == "__start_profile")
        found = [event for event in found if event.kind() == "memory_alloc"]
        if len(threads) > 1:  # a backward pass on a GPU has a thread of its own
            found.sort(key=begin.cpu_elapsed_us)
        events.extend(found)


def hand_back_freed_memory() -> bool:
    """Let this process give large freed tensors back to the system at once; returns whether it can.

    glibc keeps freed blocks below 32 MiB in its heap, where small objects settle in them, so that the next large tensor
    does not fit: a process took up to 2.1 times what its tensors did (ResNet-20, 128 images). Handed back, it takes
    what they do. That costs page faults: 15 to 50 % of the time of products whose tensors are smaller than 32 MiB;
    larger ones are handed back anyway. Changes no number.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    return bool(ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES))
