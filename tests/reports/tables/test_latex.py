import re

import pandas as pd
import pytest

from reports.tables._column import number, text
from reports.tables._latex import escape_latex, to_latex

COLUMNS = (text("Method", "method"), number("Accuracy (%)", "accuracy", lambda value: f"{value:.1f} ± 0.1"))


@pytest.mark.parametrize(
    ("raw", "escaped"),
    [
        ("plain words", "plain words"),
        ("rare_gems & 95%", r"rare\_gems \& 95\%"),
        ("$x^2$ #1 ~", r"\$x\textasciicircum{}2\$ \#1 \textasciitilde{}"),
        (r"\input{/etc/passwd}", r"\textbackslash{}input\{/etc/passwd\}"),
        ("<script>", r"\textless{}script\textgreater{}"),
        ("1.0 ± 0.1", r"1.0 $\pm$ 0.1"),
        ("−0.3", "$-$0.3"),
        ("two\nlines", "two lines"),
    ],
)
def test_text_is_set_as_itself(raw, escaped):
    assert escape_latex(raw) == escaped


def test_the_table_is_one_environment():
    frame = pd.DataFrame({"method": ["LOMP"], "accuracy": [97.25]})
    assert to_latex(frame, COLUMNS, "Title", "Caption.", "methods").splitlines() == [
        r"\begin{table}",
        r"  \centering",
        r"  \caption{Title. Caption.}",
        r"  \label{tab:methods}",
        r"  \begin{tabular}{lr}",
        r"    \toprule",
        r"    Method & Accuracy (\%) \\",
        r"    \midrule",
        r"    LOMP & 97.2 $\pm$ 0.1 \\",
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]


def test_a_hostile_name_adds_no_column_and_no_command():
    hostile = r"a & b \\ \write18{rm} % c" + "\n{"
    line = to_latex(pd.DataFrame({"method": [hostile], "accuracy": [1.0]}), COLUMNS, "T", "C.", "x").splitlines()[8]
    assert len(re.findall(r"(?<!\\)&", line)) == 1
    assert re.findall(r"\\([A-Za-z]+)", line) == ["textbackslash"] * 3 + ["pm"]
    assert len(re.findall(r"(?<!\\)%", line)) == 0
