import re

import pandas as pd
import pytest

from reports.tables._column import number, text
from reports.tables._markdown import escape_markdown, to_markdown

COLUMNS = (text("Method", "method"), number("Accuracy (%)", "accuracy", lambda value: f"{value:.1f}"))


@pytest.mark.parametrize(
    ("raw", "escaped"),
    [
        ("plain words, 12.5 ± 0.3", "plain words, 12.5 ± 0.3"),
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("a & b", "a &amp; b"),
        ("a|b", r"a\|b"),
        ("rare_gems", r"rare\_gems"),
        ("[x](javascript:1)", r"\[x\](javascript:1)"),
        ("`code` *bold* ~no~", r"\`code\` \*bold\* \~no\~"),
        ("back\\slash", r"back\\slash"),
        ("two\nlines\r\n| and more", r"two lines \| and more"),
    ],
)
def test_text_renders_as_itself(raw, escaped):
    assert escape_markdown(raw) == escaped


def test_columns_line_up_and_numbers_stand_right():
    frame = pd.DataFrame({"method": ["LOMP", "Rare Gems"], "accuracy": [97.25, 8.0]})
    lines = to_markdown(frame, COLUMNS, "Title", "Caption.").splitlines()
    assert lines == [
        "## Title",
        "",
        "Caption.",
        "",
        "| Method    | Accuracy (%) |",
        "| --------- | -----------: |",
        "| LOMP      |         97.2 |",
        "| Rare Gems |          8.0 |",
    ]


def test_a_hostile_name_adds_no_column():
    frame = pd.DataFrame({"method": ["a | b\n| c"], "accuracy": [1.0]})
    last = to_markdown(frame, COLUMNS, "Title", "Caption.").splitlines()[-1]
    assert len(re.findall(r"(?<!\\)\|", last)) == 3


def test_an_empty_table_is_its_heading():
    frame = pd.DataFrame({"method": [], "accuracy": []})
    assert to_markdown(frame, COLUMNS, "Title", "Caption.").splitlines()[4:] == [
        "| Method | Accuracy (%) |",
        "| ------ | -----------: |",
    ]
