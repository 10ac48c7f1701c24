"""What Slurm gave to the job that this process runs in."""

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from suite.errors import UserError

MEMORY_BYTES_PER_CPU = 2 * 2**30  # where Slurm hands out no memory; bookkeeping only, Ray does not enforce it
PATIENCE_S = 60.0


@dataclass(frozen=True)
class Allocation:
    """The nodes of a job and its share of each.

    Attributes:
        number: the job's own number; each element of an array has one.
        name: the same as people see it: 12_3 for element 3 of array 12; with the count of its restarts, if any.
        hosts: names of the nodes, that of this process first.
        cpus: on each node.
        gpus: on each node.
        memory_bytes: on each node.
    """

    number: int
    name: str
    hosts: tuple[str, ...]
    cpus: int
    gpus: int
    memory_bytes: int


def allocation(variables: Mapping[str, str] = os.environ) -> Allocation:
    """Read the allocation from what Slurm set in a job's environment.

    Raises:
        UserError: this is no job of Slurm, or Slurm does not know its nodes.
    """
    try:
        number, own, nodes = variables["SLURM_JOB_ID"], variables["SLURMD_NODENAME"], variables["SLURM_JOB_NODELIST"]
    except KeyError as error:
        raise UserError(f"{error.args[0]} is not set. Expected: a process inside a job of Slurm.") from None
    main, index = variables.get("SLURM_ARRAY_JOB_ID"), variables.get("SLURM_ARRAY_TASK_ID")
    name = f"{main}_{index}" if main and index else number
    restarts = int(variables.get("SLURM_RESTART_COUNT") or 0)
    cpus = _first_number(variables, "SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE") or 1
    return Allocation(
        number=int(number),
        name=f"{name}-restart{restarts}" if restarts else name,
        hosts=(own, *(each for each in _expanded(nodes) if each != own)),
        cpus=cpus,
        gpus=_first_number(variables, "SLURM_GPUS_ON_NODE", "SLURM_GPUS_PER_NODE"),
        memory_bytes=_memory_bytes(variables, cpus),
    )


def _first_number(variables: Mapping[str, str], *names: str) -> int:
    """Return the number at the end of the first variable that holds one, as in "2" and in "tesla:2"; 0 if none does."""
    found = (re.search(r"(\d+)$", variables.get(name, "")) for name in names)
    return next((int(each[1]) for each in found if each), 0)


def _memory_bytes(variables: Mapping[str, str], cpus: int) -> int:
    node_mib = _first_number(variables, "SLURM_MEM_PER_NODE")
    cpu_mib = _first_number(variables, "SLURM_MEM_PER_CPU")
    return (node_mib or cpus * cpu_mib) * 2**20 or cpus * MEMORY_BYTES_PER_CPU


def _expanded(nodes: str) -> list[str]:
    """Return the names in a list such as n[1-2,7]; Slurm itself knows how to read it."""
    if "[" not in nodes:
        return nodes.split(",")
    try:
        done = subprocess.run(  # noqa: S603  no shell; the list is Slurm's own
            ["scontrol", "show", "hostnames", nodes],  # noqa: S607  Slurm is where the site's PATH says
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise UserError(f"scontrol does not tell the nodes of this job: {str(error).splitlines()[0]}") from None
    return done.stdout.split()
