"""What methods, limits and sources are called in print, and the order in which they are shown."""

from collections.abc import Iterable

import pandas as pd

METHOD_ORDER = ("dense", "lomp", "lomp_fine_tuned", "imp", "rare_gems", "smart_ratio", "random")

LIMIT_LABELS = {
    "gaussian_width": "Gaussian width",
    "gaussian_width_faithful": "Gaussian width, published numerics",
    "statistical_dimension": "Statistical dimension",
    "masked_quadratic": "Masked quadratic",
    "one_shot": "One-shot",
    "fine_tuned": "Fine-tuned",
    "one_shot_accuracy": "One-shot, accuracy",
    "fine_tuned_accuracy": "Fine-tuned, accuracy",
}
SOURCE_LABELS = {
    "slq": "SLQ",
    "conjugate_gradients": "Conjugate gradients",
    "dense_hessian": "Dense Hessian",
    "measured": "Measured",
}


def ordered(known: Iterable[str], names: Iterable[str]) -> list[str]:
    """Return the names, each once: the known ones in their order, then the others by the alphabet."""
    found = {str(name) for name in names}
    first = [name for name in known if name in found]
    return [*first, *sorted(found - set(first))]


def methods_in(rows: pd.DataFrame) -> list[str]:
    """Return the methods that have a row, in the order of print; a method added by a file comes after the known."""
    return ordered(METHOD_ORDER, rows["method"])


def method_labels(rows: pd.DataFrame) -> dict[str, str]:
    """Return the printed name of every method; two methods that claim the same name keep their own beside it."""
    first = {method: str(rows.loc[rows["method"] == method, "label"].iloc[0]) for method in methods_in(rows)}
    counts = pd.Series(list(first.values()), dtype="str").value_counts()
    return {method: label if counts[label] == 1 else f"{label} [{method}]" for method, label in first.items()}


def limits_in(limits: pd.DataFrame) -> list[str]:
    """Return the limits that have a row, in the order of print."""
    return ordered(LIMIT_LABELS, limits["limit"])


def limit_label(limit: str) -> str:
    """Return the printed name of a limit; one that is not known is shown as it is stored."""
    return LIMIT_LABELS.get(limit, limit.replace("_", " "))


def source_label(source: str) -> str:
    """Return the printed name of what a limit or spectrum was computed from."""
    return SOURCE_LABELS.get(source, source.replace("_", " "))
