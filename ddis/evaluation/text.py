"""Rows as text, CSV with all digits and Markdown for reading; and the tables of a study back from their files."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ddis.errors import InputError
from ddis.files import read_text

NAMES = dict.fromkeys(("problem", "observation", "run", "percent"), "string")
"""Columns of names: text, also where a run is called 007 or NA."""


def read_table(path: Path | str, types: Mapping[str, str] = NAMES) -> pd.DataFrame:
    """A table of a study; an empty cell is missing, and in columns of numbers nan too. Raises InputError."""
    text = read_text(path)
    try:
        columns = pd.read_csv(io.StringIO(text), nrows=0).columns
        missing = {name: [""] if types.get(name) == "string" else ["", "nan"] for name in columns}
        return pd.read_csv(io.StringIO(text), dtype=dict(types), keep_default_na=False, na_values=missing)
    except ValueError as error:
        raise InputError(f"{path} cannot be read as a table: {error}") from error


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
