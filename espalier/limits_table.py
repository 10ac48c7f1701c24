"""Limits as rows of a table: the same ones on a terminal and in a notebook."""

from typing import Any

COLUMNS = {
    "sparsity_limit": "Sparsity limit",
    "error": "Error",
    "lower": "Feasible below",
    "upper": "Infeasible above",
    "at_half_tolerance": "At half the loss tolerance",
    "at_double_tolerance": "At double",
}
NAMES = {
    "gaussian_width": "Gaussian width (published)",
    "statistical_dimension": "Statistical dimension",
    "gaussian_width_faithful": "Gaussian width, published numerics",
    "masked_quadratic": "Quadratic model, actual mask",
}
_SHORT = ("limit", "error", "lower", "upper", "half", "double")  # for 80 columns
_PARTS = {
    "probe_standard_error": "probes",
    "truncation": "steps",
    "subset_bias": "examples",
    "total": "total",
    "epsilon_sensitivity": "(half to double)",
}
_LEGEND = (
    "sparsity: fraction of the prunable weights that can go; lower, upper: feasible",
    "below, infeasible above; half, double: at half and double the loss tolerance.",
)


def limits_in(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what of a result is a limit, by name."""
    return {name: part for name, part in values.items() if isinstance(part, dict) and "sparsity_limit" in part}


def row_of(limit: dict[str, Any]) -> dict[str, float | None]:
    """Return one limit's numbers by the keys of COLUMNS; None for what is not known or bounds nothing."""
    error = limit.get("budget", {}).get("total", limit.get("probe_standard_error"))
    upper = limit["upper"] if limit["upper"] is not None and limit["upper"] < 1.0 else None  # one side alone is bounded
    shown = {**limit, "error": error, "upper": upper}
    return {name: shown.get(name) for name in COLUMNS}


def table_lines(values: dict[str, Any]) -> list[str]:
    """Return the limits of a result as lines of text, in sparsity, with the parts of their errors where known."""
    limits = limits_in(values)
    if not limits:
        return []
    lines = _aligned("sparsity", _SHORT, {name: list(row_of(part).values()) for name, part in limits.items()})
    budgets = {name: part["budget"] for name, part in limits.items() if "budget" in part}
    if budgets:
        rows = {name: [budget[part] for part in _PARTS] for name, budget in budgets.items()}
        lines += ["", *_aligned("error from", tuple(_PARTS.values()), rows)]
    return [*lines, "", *_LEGEND]


def _aligned(title: str, heads: tuple[str, ...], rows: dict[str, list[float | None]]) -> list[str]:
    width = max(len(title), *(len(name) for name in rows))
    widths = [max(7, len(head)) for head in heads]
    table = {title: list(heads)} | {
        name: ["-" if value is None else f"{value:.4f}" for value in row] for name, row in rows.items()
    }
    return [
        "  ".join([f"{name:{width}}", *(f"{text:>{each}}" for text, each in zip(texts, widths, strict=True))])
        for name, texts in table.items()
    ]
