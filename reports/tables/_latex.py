r"""A table as LaTeX, to be read into a paper with \input. Needs the package booktabs, and UTF-8 input."""

import pandas as pd

from reports.tables._column import Column, printed

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "±": r"$\pm$",
    "−": "$-$",
    "×": r"$\times$",
    "–": "--",
    "ε": r"$\varepsilon$",
    "λ": r"$\lambda$",
    "≤": r"$\leq$",
}


def escape_latex(text: str) -> str:
    """Return text that LaTeX sets as itself; line breaks become spaces.

    Signs are replaced one by one in a single pass, so that the backslash of one replacement is not escaped again.
    """
    return "".join(_ESCAPES.get(sign, sign) for sign in " ".join(text.split()))


def to_latex(frame: pd.DataFrame, columns: tuple[Column, ...], title: str, caption: str, label: str) -> str:
    """Return one table environment: caption above, booktabs rules, numbers aligned to the right.

    Args:
        frame: as built by a table.
        columns: what is printed of it.
        title: set before the caption.
        caption: one paragraph.
        label: for cross-references; letters, digits and hyphens.
    """
    alignment = "".join("r" if column.is_number else "l" for column in columns)
    body = [_line(values) for values in printed(frame, columns)]
    return "\n".join(
        [
            r"\begin{table}",
            r"  \centering",
            rf"  \caption{{{escape_latex(title)}. {escape_latex(caption)}}}",
            rf"  \label{{tab:{label}}}",
            rf"  \begin{{tabular}}{{{alignment}}}",
            r"    \toprule",
            _line([column.heading for column in columns]),
            r"    \midrule",
            *body,
            r"    \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _line(values: list[str]) -> str:
    return "    " + " & ".join(escape_latex(value) for value in values) + r" \\"
