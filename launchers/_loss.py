"""Why a job left neither a record nor a reason: what accounting says, in words that name the repair."""

import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from launchers._job_states import JobState
from launchers._submission import QueuedArray, Submission, SubmissionFolder

REPAIRS = {
    "OUT_OF_MEMORY": "ran out of memory; raise memory_gib of the profile (now {memory_gib}){fewer}",
    "TIMEOUT": "reached its time limit; raise time_min of the profile (now {time_min}) or pack fewer cells in a job",
    "DEADLINE": "could not end before its deadline",
    "NODE_FAIL": "lost its node",
    "BOOT_FAIL": "lost its node, which did not boot",
    "LAUNCH_FAILED": "could not be started on its node",
    "PREEMPTED": "was preempted and not queued again",
    "CANCELLED": "was cancelled",
    "COMPLETED": "ended without a record",
    "FAILED": "ended with exit code {code}",
}
NO_OUTPUT = "0:53"  # what accounting has where slurmd cannot open the files of a job's output
# What slurmstepd writes into a job's output. Without cgroups such a job is FAILED, not OUT_OF_MEMORY.
_TOO_MUCH_MEMORY = re.compile(r"exceeded (job|step) memory limit|oom[-_ ]?kill", re.IGNORECASE)
_NUM_LINES = 20  # of a job's output in which those words are looked for


class Loss(NamedTuple):
    """Why a job was lost: Slurm's word for it, or nothing where nobody knows, and the same in words with the repair."""

    cause: str
    message: str


def loss(
    study: Path, submission: Submission, array: QueuedArray, job: str, state: JobState | None, *, behind: bool = False
) -> Loss:
    """Return why a job was lost.

    Args:
        study: the study's folder, where the job's own output lies.
        submission: of the job.
        array: of the job.
        job: its number.
        state: what accounting says of it, if anything.
        behind: whether it was at another of its cells and never began this one, whose fault it is not.
    """
    lines = _last_lines(study, submission, job)
    if state is not None and state.state == "FAILED" and _TOO_MUCH_MEMORY.search("\n".join(lines)):
        state = replace(state, state="OUT_OF_MEMORY")
    said = f": {lines[-1][:200]}" if lines else ""
    why = f"{explanation(state, array)}{said}"
    if behind:  # a repair would be one for the cell that was begun
        why = f"{explanation(state, array).partition(';')[0]} before it came to this cell"
    return Loss(state.state if state else "", f"its job {job} {why}")


def explanation(state: JobState | None, array: QueuedArray) -> str:
    """Return why a job left no record, in words that name the repair."""
    if state is None:
        return "is gone and accounting does not know why; run the same command again"
    if (state.state, state.reason) == ("FAILED", NO_OUTPUT):
        place = state.node or "its node"
        return f"could not begin: {place} does not see the study's folder; give --out DIR that all nodes see"
    at_once = array.resources.get("cells_at_once", 1)
    fewer = f" or lower cells_at_once (now {at_once})" if at_once > 1 else ""
    code = state.reason.partition(":")[0] or "unknown"
    facts = {"memory_gib": "the site's default", **array.resources, "code": code, "fewer": fewer}
    where = f" on {state.node}" if state.node and "None" not in state.node else ""
    return REPAIRS.get(state.state, f"ended as {state.state}").format(**facts) + where


def _last_lines(study: Path, submission: Submission, job: str) -> list[str]:
    """Return the last lines that a job wrote to its standard error."""
    path = SubmissionFolder(study, submission.name).jobs / f"{job}_0_log.err"
    with suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-_NUM_LINES:]
    return []
