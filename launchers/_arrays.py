"""Cells to job arrays: one array for each wave of the plan and each kind of resources, packed and split."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from launchers._profile import Profile, Resources
from suite.plan import Cell


@dataclass(frozen=True)
class JobArray:
    """What one sbatch queues.

    Attributes:
        wave: its cells need cells of earlier waves alone.
        resources: what each element asks for.
        elements: the cells of each element, run one after the other.
    """

    wave: int
    resources: Resources
    elements: tuple[tuple[Cell, ...], ...]

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Return all its cells."""
        return tuple(cell for element in self.elements for cell in element)


def job_arrays(
    cells: Sequence[Cell], profile: Profile, limit: int, raised: Mapping[str, Resources] | None = None
) -> list[JobArray]:
    """Share cells out over arrays.

    Args:
        cells: what is to be queued, every cell after its inputs; inputs that are not among them are no concern here.
        profile: says what each kind of cell asks for, and how many are packed into an element.
        limit: elements that one array may have.
        raised: key of a cell -> what it asks for instead of what the profile says.

    Returns:
        The arrays, wave by wave.
    """
    waves = wave_of_each(cells)
    groups: dict[tuple[int, Resources], list[Cell]] = {}
    for cell in sorted(cells, key=lambda cell: waves[cell.id.key]):  # stable: the plan's order within a wave
        asked = (raised or {}).get(cell.id.key) or profile.resources(cell)
        groups.setdefault((waves[cell.id.key], asked), []).append(cell)
    arrays = []
    for (wave, resources), members in groups.items():
        packs = _chunks(members, resources.cells_per_job)
        arrays += [JobArray(wave, resources, tuple(map(tuple, part))) for part in _chunks(packs, limit)]
    return arrays


def wave_of_each(cells: Sequence[Cell]) -> dict[str, int]:
    """Return key -> length of the longest chain of these cells that a cell waits for."""
    waves: dict[str, int] = {}
    for cell in cells:
        above = [waves[each.key] for each in cell.inputs.values() if each.key in waves]
        waves[cell.id.key] = 1 + max(above) if above else 0
    return waves


def needed_jobs(array: JobArray, job_of: Mapping[str, str]) -> list[str]:
    """Return the jobs that hold inputs of an array's cells: those it has to wait for.

    Args:
        array: what is to be queued.
        job_of: key of a queued cell -> its job, without the element's number.
    """
    keys = {each.key for cell in array.cells for each in cell.inputs.values()}
    return sorted({job_of[key] for key in keys if key in job_of}, key=int)


def _chunks(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
