"""The study's answer for a terminal: accuracy of every method at every sparsity, and the limits below."""

import math

from rich import box
from rich.table import Table
from rich.text import Text

from reports._answer import answer
from reports._format import MISSING, count_text, sparsity_text
from reports._names import method_labels
from reports._results import Results
from reports._statistics import MeanInterval, mean_interval


def terminal_table(results: Results) -> Table:
    """Return one table: a section per task, a row per method, a column per sparsity asked for.

    Each value is the mean test accuracy in percent at the last epoch, to one decimal so that five fit in a row, with
    the half-width of its 95% interval over seeds; the first row of a section counts the weights kept. Names are shown
    literally: markup in them is no markup.
    """
    rows = results.requested[results.requested["method"] != "dense"]
    sparsities = sorted(set(rows["sparsity"]))
    title = Text(f"{results.name}: test accuracy in %, mean ± 95% interval over seeds")
    table = Table(
        title=title,
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        padding=(0, 0, 0, 2),
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("Method")
    table.add_column("Dense", justify="right", no_wrap=True)
    for sparsity in sparsities:
        table.add_column(sparsity_text(sparsity), justify="right", no_wrap=True)  # a name may wrap, no number
    for task in results.tasks:
        _add_task(table, results.only(task), task, sparsities)
    table.caption = _caption(results)
    return table


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
        shown = [mean_interval(accuracies) for accuracies in (dense, *values)]
        table.add_row(Text(label), *(_short_text(value) for value in shown))


def _short_text(value: MeanInterval) -> str:
    if value.num_values == 0:
        return MISSING
    mean = f"{100.0 * value.mean:.1f}"
    return mean if math.isnan(value.half_width) else f"{mean}±{100.0 * value.half_width:.1f}"


def _caption(results: Results) -> Text:
    lines = []
    for task in results.tasks:
        said = answer(results, task)
        lines += [f"{task}: {sentence}" for sentence in (said.headline, *said.highest, *said.limits, *said.missing)]
    return Text("\n".join(lines) or "There is no result yet.")
