"""What stands above every finding of a study: lines for all of its tasks."""

from reports._mixtures import mixed_precisions
from reports._results import Results


def notices(results: Results) -> list[str]:
    """Return one line each: that it is a smoke, that cells have no result, that trainings cannot be compared."""
    return [line for line in (_smoke(results), _without_result(results), mixed_precisions(results)) if line]


def _smoke(results: Results) -> str:
    if not results.smoke_of:
        return ""
    return (
        f"A smoke of {results.smoke_of}: a few steps on generated data. It shows that cells run; its numbers mean "
        "nothing, and nothing is concluded from them."
    )


def _without_result(results: Results) -> str:
    """Return how many cells have no result; whether they failed or were not run yet is in the study's folder."""
    num_lost = results.num_planned - len(results.cells) if results.num_planned else 0
    num_broken = sum(not cell.is_ok for cell in results.cells.values())
    parts = [
        f"{num_lost} of {results.num_planned} cells have no result: espalier status DIR says whether they failed, "
        "espalier logs DIR why."
        if num_lost > 0
        else "",
        f"{num_broken} of {len(results.cells)} cells with a result met numbers that are not finite, and fill no table."
        if num_broken
        else "",
    ]
    return " ".join(part for part in parts if part)
