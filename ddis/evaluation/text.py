"""The tables of a study, back from their files."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddis.errors import InputError
from ddis.files import read_text

Table = Sequence[Mapping[str, Any]]
"""Rows with the same columns; None in what does not apply."""

NAMES: Mapping[str, type] = dict.fromkeys(("problem", "observation", "run", "percent", "part"), str)
"""Columns of names: text, also where a run is called 007 or NA."""


def read_table(path: Path | str, types: Mapping[str, type] = NAMES) -> list[dict[str, Any]]:
    """The rows of a table; None where a cell is empty, or nan in a column of numbers.

    types: str, int or float by column, other than the default all that there must be; other columns have numbers alone.
    Raises InputError.
    """
    text = read_text(path)
    try:
        head, *rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row] or [[]]
        if lacking := [name for name in types if name not in head and types is not NAMES]:
            raise ValueError(f"it lacks the columns {', '.join(lacking)}")
        if not head or {len(row) for row in rows} - {len(head)}:
            raise ValueError("it is empty, or its lines are not of one length")
        kinds = [types.get(name, _number) for name in head]
        return [dict(zip(head, map(_cell, row, kinds), strict=True)) for row in rows]
    except (ValueError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as a table: {error}") from error


def grouped(table: Table, *names: str) -> dict[tuple[Any, ...], list[Mapping[str, Any]]]:
    """The rows by their values in some columns, in the order in which these are first met."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in table:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    return groups


def where(table: Table, **values: Any) -> list[Mapping[str, Any]]:
    """The rows that have these values."""
    return [row for row in table if all(row[name] == value for name, value in values.items())]


def known(table: Table, name: str) -> list[Mapping[str, Any]]:
    """The rows that have something in a column."""
    return [row for row in table if row[name] is not None]


def numbers(table: Table, name: str) -> NDArray[np.float64]:
    """A column; NaN where it is empty."""
    return np.array([row[name] for row in table], np.float64)


def _number(text: str) -> float:
    try:
        return int(text)
    except ValueError:
        return float(text)


def _cell(text: str, kind: Callable[[str], Any]) -> Any:
    return None if text == "" or (text == "nan" and kind is not str) else kind(text)
