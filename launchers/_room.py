"""Whether the jobs of a plan fit into what a user may have in the queue at a time.

Slurm counts each element of an array as a job (MaxSubmitJobs) and refuses the sbatch that goes beyond; what was queued
before it would have to be taken back. So a plan that cannot fit is refused before its first sbatch. It is not queued in
parts: `submit` returns, and nobody would be there to queue the rest.
"""

from collections.abc import Sequence
from math import ceil

from launchers._arrays import JobArray
from launchers._profile import Resources
from launchers._refusals import Refused
from launchers._slurm_cluster import Cluster


def check_room(arrays: Sequence[JobArray], cluster: Cluster) -> None:
    """Refuse arrays that have more elements than the user may queue.

    Raises:
        Refused: too many; with their number, what is allowed, and what to change.

    Cost: nothing where limits are not enforced; else two sacctmgr and one squeue for each account and qos.
    """
    groups: dict[tuple[str | None, str | None], list[JobArray]] = {}
    for array in arrays:
        groups.setdefault((array.resources.account, array.resources.qos), []).append(array)
    for members in groups.values():
        allowed, queued = cluster.room(members[0].resources)
        number = sum(len(array.elements) for array in members)
        if allowed.limit is not None and number > allowed.limit - queued:
            raise Refused(
                f"{number} jobs are too many: {allowed.source} allows {allowed.limit} in the queue at a time, and "
                f"{queued} are there. {_repair(members, allowed.limit, queued)}"
            )


def _repair(arrays: Sequence[JobArray], limit: int, queued: int) -> str:
    """Return how many cells have to be packed in a job, or that others have to end first."""
    cells: dict[tuple[int, Resources], int] = {}
    for array in arrays:
        kind = (array.wave, array.resources)
        cells[kind] = cells.get(kind, 0) + len(array.cells)
    for free, when in ((limit - queued, ""), (limit, " and wait until the others have ended")):
        for packed in range(1, max(cells.values()) + 1):
            if sum(ceil(number / packed) for number in cells.values()) <= free:
                return f"Pack more cells in a job: cells_per_job = {packed} in the profile{when}."
    return f"A plan of this study has at least {len(cells)} jobs. Ask for a higher limit, or make a smaller study."
