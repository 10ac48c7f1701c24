"""The study's answer for a terminal: accuracy of every method at every sparsity, and the limits below."""

import math

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from reports._answer import answer
from reports._format import MISSING, count_text, sparsity_text
from reports._names import method_labels
from reports._notices import notices
from reports._results import Results
from reports._statistics import FRACTION, MeanInterval, mean_interval


def terminal_report(results: Results) -> Group:
    """Return one table, a section per task, a row per method, a column per sparsity asked for, and the answers.

    Each value is the mean test accuracy in percent at the last epoch, to one decimal so that five fit in a row, with
    the half-width of its 95% interval over seeds, or below it the interval's ends where one of them is cut at 0 or 100;
    the first row of a section counts the weights kept. Sentences
    are as wide as the terminal. Names are shown literally: markup in them is no markup.
    """
    rows = results.requested[results.requested["method"] != "dense"]
    sparsities = sorted(set(rows["sparsity"]))
    over = "mean ± 95% interval over seeds" if rows["seed"].nunique() > 1 else "one seed"
    title = Text(f"{results.name}: test accuracy in %, {over}", style="italic")
    # Neither title nor caption of the table: rich would wrap them at its width, which may be a few letters.
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 0, 0, 2))
    table.add_column("Method")
    table.add_column("Dense", justify="right", no_wrap=True)
    for sparsity in sparsities:
        table.add_column(sparsity_text(sparsity), justify="right", no_wrap=True)  # a name may wrap, no number
    for task in results.tasks:
        _add_task(table, results.only(task), task, sparsities)
    above = [Text(line, style="bold yellow") for line in notices(results)]
    below = [_sentences(results)] if not results.smoke_of else []
    return Group(*above, title, table, *below)


def _add_task(table: Table, here: Results, task: str, sparsities: list[float]) -> None:
    table.add_section()
    rows = here.requested
    num_prunable = sorted(set(rows["num_prunable"]))
    totals = ", ".join(count_text(count) for count in num_prunable) or MISSING
    kept = [
        ", ".join(count_text(n) for n in sorted(set(rows.loc[rows["sparsity"] == s, "num_kept"]))) for s in sparsities
    ]
    table.add_row(Text(f"{task}: kept", style="bold"), totals, *(text or MISSING for text in kept), style="dim")
    for method, label in method_labels(rows).items():
        if method == "dense":
            continue
        mine = rows[rows["method"] == method]
        values = [mine.loc[mine["sparsity"] == sparsity, "test_accuracy"] for sparsity in sparsities]
        dense = mine.groupby("seed")["dense_test_accuracy"].mean()
        shown = [mean_interval(accuracies, bounds=FRACTION) for accuracies in (dense, *values)]
        table.add_row(Text(label), *(_short_text(value) for value in shown))


def _short_text(value: MeanInterval) -> str:
    if value.num_values == 0:
        return MISSING
    mean = f"{100.0 * value.mean:.1f}"
    if math.isnan(value.half_width):
        return mean
    if (value.lower > 0.0 and value.upper < 1.0) or value.half_width == 0.0:
        return f"{mean}±{100.0 * value.half_width:.1f}"
    return f"{mean}\n{100.0 * value.lower:.3g}–{100.0 * value.upper:.3g}"  # side by side, five would not fit in a row


def _sentences(results: Results) -> Text:
    lines = []
    for task in results.tasks:
        lines += [f"{task}: {sentence}" for sentence in answer(results, task).sentences]
    return Text("\n".join(lines) or "There is no result yet.")
