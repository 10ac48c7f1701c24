"""A folder where jobs of another plan are in the queue: its frozen plan is not replaced under them."""

from pathlib import Path

from launchers._slurm_call import SlurmFailed
from launchers._slurm_cluster import Cluster
from launchers._submission import submissions
from suite.errors import UserError
from suite.plan import Plan


def refuse_other_plan(plan: Plan, folder: Path, cluster: Cluster) -> None:
    """Refuse a plan without cells that jobs of this folder hold: status and retry would know of them no more.

    Args:
        plan: to be frozen in the folder.
        folder: the study's, there or not.
        cluster: asked only when the folder was ever queued with cells that this plan does not have.

    Raises:
        UserError: such jobs are in the queue.

    Cost: one squeue, if any.
    """
    mine = {cell.id.key for cell in plan.cells}
    jobs = {
        array.ids[index]: each.name
        for each in submissions(folder)
        for key, array, index in each.holders()
        if key not in mine
    }
    try:
        alive = cluster.standing(sorted(set(jobs.values()))) if jobs else {}
    except SlurmFailed:  # where Slurm is not asked, nobody is queued
        return
    number = sum(job in jobs and not state.ended for job, state in alive.items())
    if number:
        raise UserError(
            f"{number} jobs of another plan are in the queue for {folder}. Expected: the study and the settings that "
            f"were queued there. Give another folder with --out DIR, or take them back first: espalier cancel {folder}"
        )
