"""What a study asked for and has no result of."""

from reports._format import sparsity_text
from reports._results import Results, names_in
from reports._sentences import listed

_SHOWN = 6
# One that is added by a file may fill tables that no report reads: of its rows nothing is known here.
_ANALYSES = ("spectrum", "dense_hessian", "limit", "faithful_limit", "masked_limit", "row_norms", "sweep")


def lost_results(here: Results) -> dict[str, list[tuple[float, int]]]:
    """Return method -> (sparsity, seed) of every row that the plan holds and the results do not, in its order."""
    rows = here.rows
    found = {
        (method, round(sparsity, 9), seed)
        for method, sparsity, seed in zip(rows["method"], rows["sparsity"], rows["seed"], strict=True)
    }
    lost: dict[str, list[tuple[float, int]]] = {}
    for row in here.planned:
        method, sparsity, seed = row["method"], float(row["sparsity"]), int(row["seed"])
        if (method, round(sparsity, 9), seed) not in found:
            lost.setdefault(method, []).append((sparsity, seed))
    return lost


def missing_sentences(here: Results) -> list[str]:
    """Return what the study asked of one task and this task has no row for."""
    labels = {row["method"]: row["label"] for row in here.planned}
    sentences = []
    for method, lost in lost_results(here).items():
        num_asked = sum(row["method"] == method for row in here.planned)
        places = listed([f"{sparsity_text(sparsity)} seed {seed}" for sparsity, seed in lost[:_SHOWN]])
        more = f" and {len(lost) - _SHOWN} more" if len(lost) > _SHOWN else ""
        sentences.append(f"{labels[method]}: no result for {len(lost)} of {num_asked} networks ({places}{more}).")
    return [*sentences, *_lost_analyses(here)]


def _lost_analyses(here: Results) -> list[str]:
    tables = (here.limits, here.spectra, here.row_norms, here.sweeps)
    found = {here.cell(str(name)).kind for table in tables for name in table["cell"]}
    lost = [name for name in names_in(here.study.get("analyses", ())) if name in _ANALYSES and name not in found]
    return [f"No result of the {'analysis' if len(lost) == 1 else 'analyses'} {listed(lost)}."] if lost else []
