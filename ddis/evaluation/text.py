"""Rows as text: CSV with all digits, Markdown for reading."""

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


def pipe_table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """A Markdown table, without a line break at its end."""
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in (head, *body)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def with_interval(row: Mapping[str, Any], value: str, low: str, high: str, digits: int = 3) -> str:
    """`value [low, high]` of a row, to significant digits; the value alone where the ends are empty, nothing without a value."""
    number, *ends = (row[name] for name in (value, low, high))
    if number is None:
        return ""
    shown = f"{number:.{digits}g}"
    return shown if None in ends else f"{shown} [{ends[0]:.{digits}g}, {ends[1]:.{digits}g}]"
