"""Whether a cluster gives what a profile asks for: the checks behind `espalier doctor --profile`.

Slurm is asked for everything once, so that the doctor is no load: one scontrol, one sinfo, at most two sacctmgr and one
squeue, one `sbatch --test-only` for each kind of resources, and one test job.
"""

import importlib.util
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from launchers._finding import Finding, Verdict
from launchers._folder_name import folder_name_trouble
from launchers._partition_fit import AMOUNTS, Amount, lack
from launchers._profile import Profile, Resources
from launchers._slurm_call import SlurmFailed
from launchers._slurm_cluster import SlurmCluster
from launchers._slurm_facts import (
    Partition,
    allowance,
    configuration,
    max_array_size,
    num_queued,
    partition_called,
    partition_names,
    partitions,
    partitions_called,
)
from launchers._slurm_trial import Answer, here, run_trial
from suite.errors import UserError
from suite.extensions import available
from suite.plan import Cell
from suite.store import CellId

NEEDED = ("sbatch", "srun", "squeue", "scontrol", "scancel", "sinfo")
REQUEUES = ("REQUEUE", "SUSPEND", "GANG")  # modes of preemption after which a job goes on or begins again


class Asked(NamedTuple):
    """What some kinds of cell ask for, and where."""

    kinds: str  # in words
    resources: Resources
    partition: Partition | None


def survey_cluster(profile: Profile, folder: Path, told: Callable[[str], None] = lambda _: None) -> Iterator[Finding]:
    """Yield the findings one by one; the test job at the end takes as long as the queue.

    Args:
        profile: what will be asked for.
        folder: where the study is to be.
        told: called with one line when something begins that takes time, and with an empty one when it has ended.

    Raises:
        UserError: the profile contradicts itself.
    """
    programs = list(_programs(profile))
    yield from programs
    if any(each.is_bad for each in programs):
        return
    trouble = folder_name_trouble(folder)
    if trouble:
        yield Finding("folder", "change", trouble.rstrip("."), "another folder with --out")
    told("asking Slurm")
    try:
        config, known = configuration(), partitions()
    except SlurmFailed as error:
        told("")
        yield Finding("controller", "missing", str(error), "SLURM_CONF, or ask the cluster's administrators")
        return
    asked = _asked(profile, known)
    allowed = list(_jobs_at_a_time(asked, config))
    accepted = list(_accepted(asked, profile))
    told("")
    yield Finding("controller", "ok", f"{config.get('ClusterName', '?')}, Slurm {config.get('SLURM_VERSION', '?')}")
    yield from _partitions(asked, known)
    yield from (_counted(asked, known, each) for each in AMOUNTS)
    yield Finding("arrays", "ok", f"up to {max_array_size(config) - 1} jobs in one; larger ones are split")
    yield from (*allowed, _accounting(config), *_preemption(asked, known, config), *accepted)
    if not trouble and not any(each.is_bad for each in accepted):
        yield from _on_a_node(profile, folder, told)


def _programs(profile: Profile) -> Iterator[Finding]:
    absent = [each for each in NEEDED if shutil.which(each) is None]
    repair = "a machine where Slurm's commands work, or PATH"
    yield Finding(
        "commands",
        "missing" if absent else "ok",
        ", ".join(absent) or "sbatch and all others",
        repair if absent else "",
    )
    for module, needed in (("submitit", True), ("ray", _spreads(profile))):
        if importlib.util.find_spec(module):
            yield Finding(module, "ok", "installed")
        else:
            extra = "slurm" if module == "submitit" else module
            use = "" if needed else " (for probes spread over GPUs and nodes, which this profile does not ask for)"
            verdict: Verdict = "missing" if needed else "optional"
            yield Finding(module, verdict, "not installed", f"pip install -e '.[{extra}]'{use}")


def _spreads(profile: Profile) -> bool:
    return any((each.nodes or 1) > 1 or (each.gpus or 0) > 1 for each in (profile, *profile.kinds.values()))


def _asked(profile: Profile, known: Mapping[str, Partition]) -> list[Asked]:
    """Return all that the kinds of cell ask for, without doubles."""
    kinds: dict[Resources, list[str]] = {}
    for kind in available("suite.cells"):
        kinds.setdefault(profile.resources(Cell(CellId(kind, "0" * 64), {}, {}, kind, 1)), []).append(kind)
    words = "others" if len(kinds) > 1 else ""
    most = max(kinds.values(), key=len)
    return [
        Asked(words if each is most else ", ".join(each), asked, partition_called(asked.partition, known))
        for asked, each in kinds.items()
    ]


def _partitions(asked: list[Asked], known: Mapping[str, Partition]) -> Iterator[Finding]:
    """Yield whether the partitions are there, and up; of a list with commas one that is up is enough."""
    every = f"partition = one of {', '.join(sorted(known))}"
    for names in dict.fromkeys(each.resources.partition for each in asked):
        found = partitions_called(names, known)
        absent = [name for name in partition_names(names) if name not in known]
        if absent or not found:
            state = f"{', '.join(absent)} is not there" if absent else "no default one"
            yield Finding("partition", "change", state, every)
            continue
        default = "" if names else ", the default"
        states = [f"{each.name}{default}, {each.num_nodes} nodes" for each in found if each.state == "up"]
        verdict: Verdict = "ok" if states else "change"
        states += [f"{each.name} is {each.state}" for each in found if each.state != "up"]
        yield Finding("partition", verdict, "; ".join(states), "" if verdict == "ok" else every)


def _counted(asked: list[Asked], known: Mapping[str, Partition], amount: Amount) -> Finding:
    """Return whether a partition has as much of something as each kind of cell asks for."""
    states = []
    for each in asked:
        wanted = getattr(each.resources, amount.key)
        whose = f" ({each.kinds})" if each.kinds else ""
        found = lack(each.resources, known, amount, whose)
        if found:
            return Finding(amount.what, "change", found.state, found.repair)
        if not wanted:
            states.append(f"none asked{whose}")
            continue
        limit = getattr(each.partition, amount.has) if each.partition else None
        bound = "no limit" if limit is None else f"{limit:g} {amount.unit}".rstrip()
        states.append(f"{wanted:g} of {bound}{whose}")
    return Finding(amount.what, "ok", "; ".join(dict.fromkeys(states)))


def _accounting(config: Mapping[str, str]) -> Finding:
    kind = config.get("AccountingStorageType", "(null)")
    if kind in ("(null)", "accounting_storage/none", ""):
        repair = "why jobs are lost stays unknown, and they are not queued again with more"
        return Finding("accounting", "optional", "off", repair)
    if shutil.which("sacct") is None:
        return Finding("accounting", "optional", "sacct is not on the PATH", "a machine where it is")
    return Finding("accounting", "ok", kind.rpartition("/")[2])


def _jobs_at_a_time(asked: list[Asked], config: Mapping[str, str]) -> Iterator[Finding]:
    places = {(each.resources.account, each.resources.qos): each for each in asked}
    for (account, qos), each in list(places.items())[:1]:  # asked once; where kinds differ, sbatch has the last word
        try:
            limit = allowance(config, account, qos, each.resources.partition)
            queued = num_queued(limit) if limit.limit is not None else 0
        except SlurmFailed as error:
            yield Finding("jobs at a time", "optional", f"unknown: {error}", "sbatch will refuse what is too many")
            return
        if limit.limit is None:
            yield Finding("jobs at a time", "ok", "no limit is known")
        elif queued >= limit.limit:
            repair = "wait until some have ended"
            yield Finding("jobs at a time", "change", f"{limit.limit} by {limit.source}, {queued} in the queue", repair)
        else:
            state = f"{limit.limit} by {limit.source}, {queued} in the queue; cells_per_job packs more cells in one"
            yield Finding("jobs at a time", "ok", state)


def _preemption(asked: list[Asked], known: Mapping[str, Partition], config: Mapping[str, str]) -> Iterator[Finding]:
    if config.get("PreemptType", "preempt/none") in ("preempt/none", "(null)"):
        yield Finding("preemption", "ok", "off")
        return
    places = [place for each in asked for place in partitions_called(each.resources.partition, known)]
    for name, mode in dict.fromkeys((place.name, place.preempt_mode) for place in places):
        if mode.upper() == "OFF" or any(word in mode.upper() for word in REQUEUES):
            yield Finding("preemption", "ok", f"{mode} in {name}; jobs are queued with --requeue")
        else:
            repair = "keep max_retries above 0: preempted cells are queued again by a driver that waits"
            yield Finding("preemption", "optional", f"{mode} in {name}: preempted jobs do not come back", repair)


def _accepted(asked: list[Asked], profile: Profile) -> Iterator[Finding]:
    """Yield what sbatch says of each kind of resources, without queueing anything."""
    cluster = SlurmCluster()
    for each in asked:
        what = f"sbatch {each.kinds}".strip() if len(each.kinds) < 11 else "sbatch"
        try:
            yield Finding(what, "ok", cluster.would_take(each.resources, profile))
        except UserError as error:
            state, _, repair = str(error).removeprefix("sbatch refused the jobs: ").rpartition(". ")
            yield Finding(what, "change", f"refused: {state}", repair.rstrip("."))
        except SlurmFailed as error:
            yield Finding(what, "missing", str(error), "try again")


def _on_a_node(profile: Profile, folder: Path, told: Callable[[str], None]) -> Iterator[Finding]:
    """Yield what the test job found on a node."""
    try:
        answer = run_trial(profile, folder, SlurmCluster(), told)
    except OSError as error:
        yield Finding("folder", "change", f"{folder}: {error.strerror}", "--out with a folder that is yours")
        return
    except (SlurmFailed, UserError) as error:
        yield Finding("test job", "missing", str(error), "try again")
        return
    if answer.trouble:
        verdict: Verdict = "optional" if answer.is_late else "change"
        repair = "ask again later" if answer.is_late else "--out on a file system that every node has, or the profile"
        yield Finding("test job", verdict, f"{answer.job} {answer.trouble}", repair)
        return
    yield Finding("test job", "ok", f"{answer.job} on {answer.found['node']}, {answer.wall_s:.0f} s")
    yield Finding("folder", "ok", f"{folder} is seen and written from {answer.found['node']}")
    yield from _compared(answer, here(), profile)


def _compared(answer: Answer, own: dict[str, Any], profile: Profile) -> Iterator[Finding]:
    """Yield how the node differs from this machine."""
    found, node = answer.found, answer.found["node"]
    state = f"{found['python']} with torch {found['torch']} in {found['executable']}"
    if (found["python"], found["torch"]) != (own["python"], own["torch"]):
        repair = "python, modules or container of the profile: the bits of a record depend on torch"
        yield Finding("python there", "change", f"{state}; here {own['python']} with torch {own['torch']}", repair)
    else:
        yield Finding("python there", "ok", state)
    if found["espalier"] != own["espalier"] and profile.container is None:
        yield Finding(
            "espalier there", "change", f"{found['espalier']}; here {own['espalier']}", "PYTHONPATH, or python"
        )
    else:
        yield Finding("espalier there", "ok", found["espalier"])
    if profile.gpus:
        seen = Finding("GPUs there", "ok", f"torch sees {found['gpus']} of 1 asked")
        unseen = Finding(
            "GPUs there", "optional", f"torch sees none on {node}", "a build of torch for CUDA, or gpus = 0"
        )
        yield seen if found["gpus"] else unseen
    if _spreads(profile):
        lacking = Finding("ray there", "change", "not installed", "pip install -e '.[ray]'")
        yield Finding("ray there", "ok", "installed") if found["ray"] else lacking
    if "scratch_error" in found:
        yield Finding(
            "scratch", "change", f"{found['scratch']} on {node}: {found['scratch_error']}", "scratch of the profile"
        )
    else:
        yield Finding("scratch", "ok", f"{found['scratch']} on {node}, {found['free_gib']:.1f} GiB free")
