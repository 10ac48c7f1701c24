"""A table as Markdown that reads well both rendered and as plain text."""

import re

import pandas as pd

from reports.tables._column import Column, printed

# Every sign that Markdown, or the HTML inside it, would take for markup in the middle of a line.
_MARKUP = re.compile(r"([\\`*_\[\]|~$])")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def escape_markdown(text: str) -> str:
    """Return text that renders as itself inside one table cell; line breaks become spaces."""
    one_line = " ".join(text.split())
    for sign, entity in _ENTITIES.items():
        one_line = one_line.replace(sign, entity)
    return _MARKUP.sub(r"\\\1", one_line)


def to_markdown(frame: pd.DataFrame, columns: tuple[Column, ...], title: str, caption: str) -> str:
    """Return a heading, the caption and one pipe table, padded so that its columns line up."""
    headings = [escape_markdown(column.heading) for column in columns]
    body = [[escape_markdown(value) for value in row] for row in printed(frame, columns)]
    widths = [max(3, *(len(row[index]) for row in [headings, *body])) for index in range(len(columns))]
    rule = [
        "-" * (width - 1) + ":" if column.is_number else "-" * width
        for column, width in zip(columns, widths, strict=True)
    ]
    lines = [_line(headings, columns, widths), _line(rule, columns, widths)]
    lines += [_line(row, columns, widths) for row in body]
    return f"## {escape_markdown(title)}\n\n{escape_markdown(caption)}\n\n" + "\n".join(lines) + "\n"


def _line(values: list[str], columns: tuple[Column, ...], widths: list[int]) -> str:
    padded = [
        value.rjust(width) if column.is_number else value.ljust(width)
        for value, column, width in zip(values, columns, widths, strict=True)
    ]
    return f"| {' | '.join(padded)} |"
