"""Rows of tables as text: CSV with all digits, Markdown and LaTeX for reading."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def csv_text(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Rows as CSV with the given columns; what is None is an empty cell."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def pipe_table(head: Sequence[str], body: Iterable[Sequence[str]], numbers: Sequence[bool] = ()) -> str:
    """A Markdown table, without a line break at its end; `numbers` says which columns are aligned to the right."""
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in (head, *body)]
    rules = ("---:" if number else "---" for number in numbers or [False] * len(head))
    return "\n".join([lines[0], "|" + "|".join(rules) + "|", *lines[1:]])


def latex_table(
    head: Sequence[str], body: Iterable[Sequence[str]], caption: str, label: str, numbers: Sequence[bool] = ()
) -> str:
    """A table environment as wide as the page (packages booktabs, graphicx). Cells of the body are LaTeX (see `tex`)."""
    return "\n".join(
        [
            "% Needs \\usepackage{booktabs,graphicx}.",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{tex(caption)}}}",
            rf"\label{{{label}}}",
            r"\resizebox{\textwidth}{!}{%",
            rf"\begin{{tabular}}{{{''.join('r' if number else 'l' for number in numbers or [False] * len(head))}}}",
            r"\toprule",
            " & ".join(tex(title) for title in head) + r" \\",
            r"\midrule",
            *(" & ".join(row) + r" \\" for row in body),
            r"\bottomrule",
            r"\end{tabular}}",
            r"\end{table}",
            "",
        ]
    )


_TEX = {"\\": r"\textbackslash{}", "%": r"\%", "_": r"\_", "&": r"\&", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}"}
_TEX |= {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$"}


def tex(text: str) -> str:
    """Plain text as LaTeX."""
    plain = "".join(_TEX.get(character, character) for character in text)
    return plain.replace("+-", r"$\pm$").replace(r"E\_s", "$E_s$").replace(" x ", r" $\times$ ")


def decimals(value: float, digits: int) -> str:
    """A number for a table; with three digits where many would stand before the point."""
    return f"{value:.3g}" if abs(value) >= 1e4 else f"{value:.{digits}f}"


def with_interval(row: Mapping[str, Any], value: str, low: str, high: str, digits: int = 3) -> str:
    """`value [low, high]` of a row, to significant digits; the value alone where the ends are empty, nothing without a value."""
    number, *ends = (row[name] for name in (value, low, high))
    if number is None:
        return ""
    shown = f"{number:.{digits}g}"
    return shown if None in ends else f"{shown} [{ends[0]:.{digits}g}, {ends[1]:.{digits}g}]"
