"""Process groups of torch on one node: they meet over a private file and talk over the loopback interface alone."""

import os
import socket
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch.distributed import ProcessGroup, Work


class PeerLost(RuntimeError):
    """A process of the group has ended or is silent: the group is of no more use, its shards have to be built anew."""


def process_group(folder: Path | str, rank: int, size: int, timeout: timedelta, device: torch.device) -> ProcessGroup:
    """Wait for all processes of a group, and return it; one group for each process.

    Args:
        folder: on this node, open to this user alone.
        rank: of this process, 0 to size - 1.
        size: number of processes.
        timeout: a peer that is silent for so long is taken for lost.
        device: of the tensors: NCCL on CUDA, Gloo elsewhere.

    Raises:
        PeerLost: they did not come together.
    """
    from torch import distributed

    loopback = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
    os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = loopback
    store = distributed.FileStore(os.path.join(folder, "store"), size)  # type: ignore[attr-defined]
    backend = "nccl" if device.type == "cuda" else "gloo"
    own = device if device.type == "cuda" and device.index is not None else None  # connects now, not at first use
    try:
        distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout, device_id=own)
    except RuntimeError as error:
        raise PeerLost(f"the group did not come together: {error}".splitlines()[0]) from error
    group: Any = distributed.group.WORLD
    found: ProcessGroup = group
    return found


def completed(begin: Callable[[], Work]) -> None:
    """Begin a collective operation and wait until its result can be used.

    Raises:
        PeerLost: another process has ended, or does not answer within the group's timeout.
    """
    try:
        begin().wait()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # every backend has errors of its own, all of them below this one
        reason = (str(error).splitlines() or [""])[0][:200]
        raise PeerLost(f"a process of the group is lost: {reason}") from error
