"""Whether a partition has what cells ask for.

Most sites let Slurm take jobs that no partition can run (EnforcePartLimits is off unless they say otherwise): they wait
for ever. So `submit` refuses them before its first sbatch, and the doctor tells all of them.
"""

from collections.abc import Mapping, Sequence
from math import floor
from typing import NamedTuple

from launchers._arrays import JobArray
from launchers._profile import Resources
from launchers._refusals import Refused
from launchers._slurm_cluster import Cluster
from launchers._slurm_facts import Partition, partition_called


class Amount(NamedTuple):
    """Something that is counted: what it is, its key in a profile, what a partition has of it, its unit."""

    what: str
    key: str
    has: str
    unit: str


AMOUNTS = (
    Amount("time limit", "time_min", "time_limit_min", "min"),
    Amount("GPUs", "gpus", "gpus", "on a node"),
    Amount("processors", "cpus", "cpus", "on a node"),
    Amount("memory", "memory_gib", "memory_gib", "GiB on a node"),
    Amount("nodes", "nodes", "num_nodes", ""),
)


class Lack(NamedTuple):
    """A partition has too little: in words what was asked and what is there, and what to change."""

    state: str
    repair: str


def lack(asked: Resources, known: Mapping[str, Partition], amount: Amount, whose: str = "") -> Lack | None:
    """Return how a partition has too little of something, or None where it has enough or nothing is known.

    Args:
        asked: what a cell asks for, and where; of several partitions, any one may have enough.
        known: all partitions by name.
        amount: which part of it.
        whose: who asks, in words.
    """
    wanted, there = getattr(asked, amount.key), partition_called(asked.partition, known)
    if not wanted or there is None or _has(there, amount, wanted):
        return None
    limit = getattr(there, amount.has)
    others = [name for name, other in known.items() if _has(other, amount, wanted)]
    elsewhere = f", or partition = {' or '.join(others)}" if others else ""
    name = asked.partition or "the default"
    most = f"{floor(100 * limit) / 100:g}"  # rounded down: it shall be accepted
    return Lack(
        f"{wanted:g} asked{whose}, {name} has {most} {amount.unit}".rstrip(), f"{amount.key} = {most}{elsewhere}"
    )


def check_partitions(arrays: Sequence[JobArray], cluster: Cluster) -> None:
    """Refuse arrays that ask for more than a node of their partition has, or for longer than it lets jobs run.

    What Slurm does not tell refuses nothing. A qos may let jobs run longer than their partition does; then sbatch has
    the last word on time.

    Raises:
        Refused: with what is there, and what to change.

    Cost: one sinfo.
    """
    known = cluster.partitions()
    for asked in dict.fromkeys(array.resources for array in arrays):
        for amount in AMOUNTS:
            if amount.key == "time_min" and asked.qos is not None:
                continue
            found = lack(asked, known, amount)
            if found:
                raise Refused(f"{amount.what}: {found.state}. Change the profile: {found.repair}.")


def _has(partition: Partition, amount: Amount, wanted: float) -> bool:
    limit = getattr(partition, amount.has)
    return limit is None or bool(limit >= wanted)
