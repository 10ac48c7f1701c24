"""Write a report: results.h5 to tables, figures and one page."""

import hashlib
import logging
import re
from pathlib import Path
from types import ModuleType

import pandas as pd

from data.hdf5 import commit_bytes
from reports._answer import answer
from reports._extensions import extensions
from reports._results import Results
from reports.figures._render import render
from reports.page.content import FigureBlock, Link, TableBlock, TaskSection, table_rows
from reports.page.render import render_page
from reports.tables._latex import to_latex
from reports.tables._markdown import to_markdown

# The eleventh digit of a mean depends on the libraries below it, and nobody reads it.
_CSV_DIGITS = "%.10g"
_logger = logging.getLogger(__name__)


def write_report(results_path: Path, folder: Path, *, command: str) -> Path:
    """Write folder/index.html, folder/tables/* and folder/figures/*; each file is replaced in one step.

    Equal results give equal tables and an equal page. Files of an earlier report that this one does not write stay.

    Args:
        results_path: a sealed results file.
        folder: created if missing.
        command: the command that writes this report, shown in its footer.

    Returns:
        The path of the page.

    Raises:
        data.hdf5.FileRefused: the results file is missing or damaged.
        reports._schema.UnreadableResults: it is not a results file that this version reads.
        OSError: the folder cannot be written.

    Cost: about a second per figure and task.
    """
    results = Results.read(results_path)
    for part in (folder, folder / "tables", folder / "figures"):
        part.mkdir(parents=True, exist_ok=True)
    tables = _write_tables(results, folder)
    sections = [_section(results, task, tables, folder) for task in results.tasks]
    page = folder / "index.html"
    commit_bytes(page, render_page(results, sections, command).encode("utf-8"))
    _logger.info("report written: %s", page)
    return page


def file_stem(name: str) -> str:
    """Return a name that is safe as part of a file name and of a URL, different for different names."""
    safe = re.sub(r"[^A-Za-z0-9-]+", "-", name).strip("-")[:60]
    if safe and safe == name:
        return safe
    return f"{safe or 'unnamed'}-{hashlib.sha256(name.encode('utf-8')).hexdigest()[:8]}"


def _write_tables(results: Results, folder: Path) -> dict[str, tuple[ModuleType, pd.DataFrame]]:
    """Write every table over all tasks as csv, Markdown and LaTeX; return them for the page."""
    tables = {}
    for name, module in extensions("reports.tables").items():
        frame = module.build(results)
        texts = {
            "csv": frame.to_csv(index=False, lineterminator="\n", float_format=_CSV_DIGITS),
            "md": to_markdown(frame, module.COLUMNS, module.TITLE, module.CAPTION),
            "tex": to_latex(frame, module.COLUMNS, module.TITLE, module.CAPTION, name),
        }
        for suffix, text in texts.items():
            commit_bytes(folder / "tables" / f"{name}.{suffix}", text.encode("utf-8"))
        tables[name] = (module, frame)
    return tables


def _section(
    results: Results, task: str, tables: dict[str, tuple[ModuleType, pd.DataFrame]], folder: Path
) -> TaskSection:
    said = answer(results, task)
    return TaskSection(
        task=task,
        anchor=f"task-{file_stem(task)}",
        headline=said.headline,
        notes=said.notes,
        highest=said.highest,
        limits=said.limits,
        missing=said.missing,
        figures=[_figure(results, task, *entry, folder) for entry in extensions("reports.figures").items()],
        tables=[_table(name, module, frame[frame["task"] == task]) for name, (module, frame) in tables.items()],
    )


def _figure(results: Results, task: str, name: str, module: ModuleType, folder: Path) -> FigureBlock:
    """Draw one figure of one task and write its files."""
    chart = module.chart(results, task)
    if chart is None:
        return FigureBlock(name, module.TITLE, module.CAPTION, module.ABSENT, None, ())
    drawing = render(chart)
    links = []
    for suffix, content in (("svg", drawing.svg), ("pdf", drawing.pdf), ("png", drawing.png)):
        path = f"figures/{name}-{file_stem(task)}.{suffix}"
        commit_bytes(folder / path, content)
        links.append(Link(suffix, path))
    return FigureBlock(name, module.TITLE, module.CAPTION, module.ABSENT, drawing.specification, tuple(links))


def _table(name: str, module: ModuleType, frame: pd.DataFrame) -> TableBlock:
    columns = tuple(column for column in module.COLUMNS if column.sort_by != "task")  # a section is one task
    links = tuple(Link(suffix, f"tables/{name}.{suffix}") for suffix in ("csv", "md", "tex"))
    return TableBlock(name, module.TITLE, module.CAPTION, module.ABSENT, columns, table_rows(frame, columns), links)
