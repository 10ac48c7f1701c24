"""What sbatch says when it refuses, and what to change in the profile; its words are those of docs/slurm.md."""

import re

from launchers._profile import Resources
from launchers._slurm_call import SlurmFailed
from suite.errors import UserError

SILENT = re.compile(r"timed out on send/recv|Unable to contact slurm controller|connect failure", re.IGNORECASE)
# The first that is found in what sbatch said. Names in braces are those of the profile.
_REPAIRS = (
    ("invalid partition", "Change partition = {partition} of the profile; all there are: sinfo"),
    ("invalid account", "Change account = {account} of the profile; yours: sacctmgr show user $USER withassoc"),
    ("invalid qos", "Change qos = {qos} of the profile; yours: sacctmgr show user $USER withassoc"),
    ("policy", "Pack more cells in a job (cells_per_job of the profile), ask for less, or wait until other jobs end"),
    ("time limit", "Lower time_min = {time_min} of the profile; what partitions allow: sinfo"),
    ("invalid generic resource", "Change gpus = {gpus} of the profile; what nodes have: sinfo --format='%P %G'"),
    ("feature", "Change constraint = {constraint} of the profile; what nodes have: sinfo --format='%P %f'"),
    (
        "specification can not be satisfied|node configuration is not available|too many",
        "Lower gpus = {gpus}, cpus = {cpus} or memory_gib = {memory_gib} of the profile; what nodes have: "
        "sinfo --format='%P %c %m %G'",
    ),
)


class Refused(UserError):
    """Slurm answers, and will not take these jobs."""


class Silent(UserError):
    """Slurm does not answer; the same may succeed later."""


def refusal(said: str, asked: Resources) -> Refused | SlurmFailed:
    """Return the error for what sbatch said when it failed.

    Args:
        said: all of it.
        asked: what it was asked for.

    Returns:
        Refused, in Slurm's words and with what to change; SlurmFailed where Slurm only does not answer.
    """
    words = " ".join(said.replace("sbatch: error: ", "").replace("allocation failure: ", "").split()).rstrip(".")
    if SILENT.search(words):
        return SlurmFailed(f"sbatch: {words}")
    return Refused(f"sbatch refused the jobs: {words or 'no reason given'}. {_repair(words, asked)}.")


def _repair(said: str, asked: Resources) -> str:
    values = {name: "(none)" if value is None else value for name, value in asked.model_dump().items()}
    for pattern, text in _REPAIRS:
        if re.search(pattern, said, re.IGNORECASE):
            return text.format(**values)
    return "Mend the profile; espalier doctor --profile P checks it"
