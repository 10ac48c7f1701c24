"""What a cluster says of itself: its configuration, its partitions, and how many jobs a user may have at a time."""

import getpass
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce

from launchers._slurm_call import call

DEFAULT_MAX_ARRAY_SIZE = 1001  # Slurm's own
_ENFORCED = {"limits", "safe", "all"}  # words of AccountingStorageEnforce by which limits count
_TIME = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?$")


@dataclass(frozen=True)
class Partition:
    """A partition as sinfo has it; where its nodes differ, the most that one of them has.

    Attributes:
        name: of it.
        is_default: whether jobs that name none go there.
        state: "up", or why nothing runs there.
        time_limit_min: None where there is none.
        preempt_mode: what happens to a job whose place is needed.
        num_nodes: how many, those that are down included.
        cpus: of a node.
        memory_gib: of a node.
        gpus: of a node.
    """

    name: str
    is_default: bool
    state: str
    time_limit_min: int | None
    preempt_mode: str
    num_nodes: int
    cpus: int
    memory_gib: float
    gpus: int


@dataclass(frozen=True)
class Allowance:
    """How many jobs a user may have in the queue at a time, running ones included; each element of an array is one.

    Attributes:
        limit: None where no limit is known.
        source: who sets it, in words.
        account: whose jobs count, empty where all of the user's do.
        qos: the same.
    """

    limit: int | None = None
    source: str = ""
    account: str = ""
    qos: str = ""


def configuration() -> dict[str, str]:
    """Return the controller's configuration, key -> value, by one call of scontrol.

    Raises:
        SlurmFailed: the controller does not answer.
    """
    pairs = (line.partition("=")[::2] for line in call("scontrol", "show", "config").splitlines())
    return {key.strip(): value.strip() for key, value in pairs if value}


def max_array_size(config: Mapping[str, str]) -> int:
    """Return the largest index of an array plus one, or Slurm's default where the controller does not tell."""
    found = config.get("MaxArraySize", "")
    return int(found) if found.isdigit() else DEFAULT_MAX_ARRAY_SIZE


def partitions() -> dict[str, Partition]:
    """Return all partitions by name, by one call of sinfo.

    Raises:
        SlurmFailed: the controller does not answer.
    """
    found: dict[str, Partition] = {}
    for line in call("sinfo", "--noheader", "--format=%P|%a|%l|%M|%D|%c|%m|%G").splitlines():
        each = _partition(line)
        if each is not None:
            found[each.name] = _both(found[each.name], each) if each.name in found else each
    return found


def partitions_called(names: str | None, known: Mapping[str, Partition]) -> list[Partition]:
    """Return the partitions of a list with commas, of which Slurm takes any one; the default one without a name.

    Those that are not known are left out.
    """
    if not names:
        return [each for each in known.values() if each.is_default][:1]
    return [known[name] for name in partition_names(names) if name in known]


def partition_names(names: str | None) -> list[str]:
    """Return the names in a list with commas."""
    return [name for name in (names or "").split(",") if name]


def partition_called(names: str | None, known: Mapping[str, Partition]) -> Partition | None:
    """Return a partition by its name, the default one without a name, or None if there is none.

    Of a list with commas, one that has of everything the most that one of them has: what it lacks, all of them lack.
    """
    found = partitions_called(names, known)
    if not found:
        return None
    limits = [each.time_limit_min for each in found if each.time_limit_min is not None]
    most = max(limits) if len(limits) == len(found) else None
    merged = reduce(_both, found)
    nodes = max(each.num_nodes for each in found)  # a job's nodes are all of one partition
    return replace(merged, name=names or merged.name, time_limit_min=most, num_nodes=nodes)


def allowance(config: Mapping[str, str], account: str | None, qos: str | None, partition: str | None) -> Allowance:
    """Return how many jobs this user may have at a time, by two calls of sacctmgr where limits count, else by none.

    A limit of the qos goes before that of the association, as Slurm has it.

    Args:
        config: of the controller.
        account: of the jobs; by default the user's own.
        qos: of the jobs; by default that of the association.
        partition: of the jobs: some associations are for one alone.

    Raises:
        SlurmFailed: accounting does not answer.
    """
    if not _ENFORCED & set(re.split(r"[,\s]+", config.get("AccountingStorageEnforce", "").lower())):
        return Allowance()
    columns = ("DefaultAccount", "Cluster", "Account", "Partition", "MaxSubmitJobs", "DefaultQOS")
    rows = _rows(columns, "user", f"name={getpass.getuser()}", "withassoc")
    wanted = account or next((row["DefaultAccount"] for row in rows), "")
    cluster = config.get("ClusterName", "")
    own = [row for row in rows if row["Account"] == wanted and row["Cluster"] in ("", cluster)]
    own = [row for row in own if row["Partition"] in ("", *partition_names(partition))]
    own.sort(key=lambda row: row["Partition"], reverse=True)  # that of the partition before the general one
    name = qos or next((row["DefaultQOS"] for row in own if row["DefaultQOS"]), "normal")
    for row in _rows(("Name", "MaxSubmitJobsPerUser"), "qos", f"name={name}"):
        if row["Name"] == name and row["MaxSubmitJobsPerUser"].isdigit():
            return Allowance(int(row["MaxSubmitJobsPerUser"]), f"qos {name}", qos=name)
    for row in own:
        if row["MaxSubmitJobs"].isdigit():
            return Allowance(int(row["MaxSubmitJobs"]), f"account {wanted}", account=wanted)
    return Allowance()


def num_queued(limit: Allowance) -> int:
    """Return how many of this user's jobs count against a limit now, by one squeue.

    Raises:
        SlurmFailed: the controller does not answer.
    """
    lines = call("squeue", "--noheader", "--array", f"--user={getpass.getuser()}", "--format=%a|%q").splitlines()
    pairs = [line.partition("|")[::2] for line in lines]
    return sum(limit.account in ("", account) and limit.qos in ("", qos) for account, qos in pairs)


def minutes(text: str) -> int | None:
    """Return a time of Slurm's (days-hours:minutes:seconds) in minutes, rounded down; None for infinite ones."""
    found = _TIME.match(text)
    if found is None:
        return None
    days, *parts = found.groups()
    known = [int(each) for each in parts if each is not None]
    if days is None:  # MINUTES, MINUTES:SECONDS or HOURS:MINUTES:SECONDS
        hours, mins = (known[0], known[1]) if len(known) == 3 else (0, known[0])
    else:
        hours, mins = known[0], known[1] if len(known) > 1 else 0
    return (int(days or 0) * 24 + hours) * 60 + mins


def _partition(line: str) -> Partition | None:
    words = line.split("|")
    if len(words) != 8:
        return None
    name, state, limit, preempt, nodes, cpus, memory, gres = words
    gpus = sum(int(count) for count in re.findall(r"\bgpu(?::[^:,()]+)?:(\d+)", gres))
    return Partition(
        name.rstrip("*"),
        name.endswith("*"),
        state,
        minutes(limit),
        preempt,
        _number(nodes),
        _number(cpus),
        _number(memory) / 1024,
        gpus,
    )


def _both(one: Partition, other: Partition) -> Partition:
    """Return one partition of nodes that differ; sinfo has a line for each kind of node."""
    most = {name: max(getattr(one, name), getattr(other, name)) for name in ("cpus", "memory_gib", "gpus")}
    return Partition(**{**vars(one), **most, "num_nodes": one.num_nodes + other.num_nodes})


def _number(text: str) -> int:
    found = re.match(r"\d+", text)
    return int(found[0]) if found else 0


def _rows(columns: Sequence[str], *what: str) -> list[dict[str, str]]:
    lines = call("sacctmgr", "--noheader", "--parsable2", "show", *what, f"format={','.join(columns)}").splitlines()
    return [dict(zip(columns, line.split("|"), strict=False)) for line in lines if line.count("|") == len(columns) - 1]
