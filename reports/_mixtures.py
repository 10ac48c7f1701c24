"""What one study should not mix unnoticed: trainings in several precisions, as "auto" is on CPUs and on GPUs."""

from collections import Counter

from reports._results import Results

TRAINING_PRECISION = "training_precision"  # the name in a cell's environment; not there: it trained nothing, or is old


def mixed_precisions(results: Results) -> str:
    """Return one line that says which cells trained in which precision, or "" where all did in one.

    `training.precision = "auto"` stands in a cell's key, not what it became on the machine: a store that CPUs and GPUs
    share may hold both, and their difference is no difference between methods.
    """
    found = Counter(
        str(cell.environment[TRAINING_PRECISION])
        for cell in results.cells.values()
        if TRAINING_PRECISION in cell.environment
    )
    if len(found) < 2:
        return ""
    counts = ", ".join(f"{number} in {name}" for name, number in sorted(found.items()))
    return (
        f"Trainings of this study were computed in different precisions ({counts} cells): differences between "
        'networks may be differences between machines. Set training.precision = "float32" or "bfloat16" for one alone.'
    )
