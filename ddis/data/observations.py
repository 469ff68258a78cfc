"""A user's own observations of a solution, and of the coefficient itself: read and checked before any work.

Columns of a CSV file or a data frame, in any order: x, y, value, and optionally noise, the standard deviation of the value (0
where the column is missing), and of, the field that is observed, solution (also where the column is missing or empty) or
coefficient. x and y are in units of the domain's side, value and noise in those of the observed field.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ddis.data.delimited import read_table
from ddis.errors import InputError

_log = logging.getLogger(__name__)

Array = NDArray[np.float64]
REQUIRED, OPTIONAL, OF = ("x", "y", "value"), ("noise",), "of"
FIELDS = {"": False, "solution": False, "coefficient": True}  # what stands in the column of: whether it is the coefficient
SAME_PLACE = 1e-6  # of the domain's side; coordinates written with seven digits differ by less


@dataclass(frozen=True)
class Observations:
    """m observations at different points of each field, each array [m]; noise is a standard deviation.

    of: which of them are of the coefficient, bool
    """

    x: Array
    y: Array
    value: Array
    noise: Array
    of: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.x)

    def table(self) -> Array:
        """Columns x, y, value, noise, [m, 4]."""
        return np.stack([self.x, self.y, self.value, self.noise], axis=1)


def read_observations(source: Any, resolution: int, periodic: bool) -> Observations:
    """Observations of a problem on S = `resolution` nodes per side, in the order of their rows; equal rows are merged.

    Args:
        source: path of a CSV file (see `ddis.data.delimited`); data frame; array [m, 3 or 4] of the columns above; or (mask,
            solution), arrays [S, S].

    Raises InputError: what cannot be read or has other columns or shapes; points outside the domain; values that are not finite;
    negative noise; a field of another name; one point with different values of one field; no observation, or more of a field
    than its nodes.
    """
    rows = _rows(source, resolution, periodic)
    _check_rows(rows)
    rows.table[:, :2] = _wrapped(rows.table[:, :2]) if periodic else rows.table[:, :2]
    kept = _distinct(rows)
    values, of = rows.table[kept], rows.of[kept]
    inside = resolution**2 if periodic else (resolution - 2) ** 2  # those whose solution is not given by the boundary
    for what, count, nodes in (("", int((~of).sum()), inside), (" of the coefficient", int(of.sum()), resolution**2)):
        if count > nodes or not kept:
            found = f"{count} observations{what} are more than there are nodes" if kept else "no observation"
            raise InputError(f"{rows.label}: {found}; accepted: 1 to {nodes} at {resolution} x {resolution} nodes")
    x, y, value, noise = np.ascontiguousarray(values.T)
    return Observations(x, y, value, noise, of)


@dataclass(frozen=True)
class _Rows:
    """Columns x, y, value, noise [m, 4], and how messages call the source and its rows: by lines of a file, else by number.

    of: which rows [m] are of the coefficient
    """

    table: Array
    of: NDArray[np.bool_]
    label: str
    lines: Sequence[int] | None = None

    def place(self, row: int) -> str:
        return _place(row, self.lines)


def _place(row: int, lines: Sequence[int] | None) -> str:
    return f"row {row + 1}" if lines is None else f"line {lines[row]}"


def _rows(source: Any, resolution: int, periodic: bool) -> _Rows:
    if isinstance(source, str | Path):
        label = str(source)
        names, numbers, words, lines = read_table(Path(source), (*REQUIRED, *OPTIONAL), (OF,))
        _check_names(names, label)
        columns = {"noise": np.zeros(len(lines)), **numbers}
        of = _fields(words.get(OF, [""] * len(lines)), label, lines)
        return _Rows(np.stack([columns[name] for name in (*REQUIRED, *OPTIONAL)], axis=1), of, label, lines)
    label = "observations"
    frame = _frame(source, resolution, periodic, label)
    return _Rows(_numbers(frame, label), _fields(_words(frame), label), label)


def _fields(words: Sequence[Any], label: str, lines: Sequence[int] | None = None) -> NDArray[np.bool_]:
    """Which rows [m] are of the coefficient. Raises InputError for a word that names no field."""
    for row, word in enumerate(words):
        if str(word).strip().lower() not in FIELDS:
            raise InputError(f"{label}: {_place(row, lines)}: of is {word}; accepted: solution (or empty), coefficient")
    return np.array([FIELDS[str(word).strip().lower()] for word in words], dtype=bool)


def _words(table: pd.DataFrame) -> list[Any]:
    """The column of, empty where it or its value is missing."""
    names = [str(name).strip().lower() for name in table.columns]
    if OF not in names:
        return [""] * len(table)
    given = table.iloc[:, names.index(OF)]
    return ["" if missing else word for word, missing in zip(given, given.isna(), strict=True)]


def _frame(source: Any, resolution: int, periodic: bool, label: str) -> pd.DataFrame:
    """The columns as they are given in Python."""
    if isinstance(source, pd.DataFrame):
        return source
    if isinstance(source, Mapping):
        try:
            return pd.DataFrame(dict(source))
        except ValueError as error:
            raise InputError(f"{label}: {error}; accepted: columns of one length") from error
    if isinstance(source, tuple):
        return _from_mask(source, resolution, periodic)
    array = np.asarray(source)
    if array.ndim != 2 or array.shape[1] not in (3, 4):
        raise InputError(f"{label}: array of shape {array.shape}; accepted: [m, 3] (x, y, value) or [m, 4] (and noise)")
    return pd.DataFrame(array, columns=[*REQUIRED, *OPTIONAL][: array.shape[1]])


def _from_mask(source: tuple[Any, ...], resolution: int, periodic: bool) -> pd.DataFrame:
    """Noiseless observations at the nodes of a mask, as in the files of samples."""
    shapes = [np.shape(part) for part in source]
    if shapes != [(resolution, resolution)] * 2:
        raise InputError(f"observations: shapes {shapes}; accepted: mask and solution, both {(resolution, resolution)}")
    mask, solution = (np.asarray(part) for part in source)
    if mask.dtype != bool:
        raise InputError(f"observations: a mask of {mask.dtype}; accepted: True where observed, else False")
    i, j = np.nonzero(mask)
    side = resolution if periodic else resolution - 1
    return pd.DataFrame({"x": i / side, "y": j / side, "value": solution[mask]})


def _check_names(names: Sequence[str], label: str) -> None:
    if len(set(names)) < len(names) or not set(REQUIRED) <= set(names) <= {*REQUIRED, *OPTIONAL, OF}:
        raise InputError(f"{label}: columns {', '.join(names) or 'none'}; accepted: x, y, value, and optionally noise and of")


def _numbers(table: pd.DataFrame, label: str) -> Array:
    """The columns as numbers [m, 4]."""
    names = [str(name).strip().lower() for name in table.columns]
    _check_names(names, label)
    columns = []
    for name in (*REQUIRED, *OPTIONAL):
        if name not in names:
            columns.append(np.zeros(len(table)))
            continue
        given = table.iloc[:, names.index(name)]
        numbers = pd.to_numeric(given, errors="coerce").to_numpy(np.float64, na_value=np.nan)
        wrong = np.flatnonzero(~np.isfinite(numbers))
        if wrong.size:
            raise InputError(f"{label}: row {wrong[0] + 1}: {name} is {given.iloc[wrong[0]]}; accepted: a finite number")
        columns.append(numbers)
    return np.stack(columns, axis=1)


def _check_rows(rows: _Rows) -> None:
    values, label = rows.table, rows.label
    outside = np.flatnonzero(((values[:, :2] < 0) | (values[:, :2] > 1)).any(axis=1))
    if outside.size:
        x, y = values[outside[0], :2]
        place, share = rows.place(outside[0]), f"{outside.size} of {len(values)}"
        raise InputError(
            f"{label}: {place}: point ({x:g}, {y:g}) is outside the domain ({share} are); "
            "accepted: x and y from 0 to 1, in units of the domain's side"
        )
    negative = np.flatnonzero(values[:, 3] < 0)
    if negative.size:
        place, noise = rows.place(negative[0]), values[negative[0], 3]
        raise InputError(f"{label}: {place}: noise {noise:g}; accepted: a standard deviation, 0 or more")


def _wrapped(points: Array) -> Array:
    return np.where(points > 1 - SAME_PLACE, 0.0, points)


def _distinct(rows: _Rows) -> list[int]:
    """The rows that repeat no earlier one. Raises InputError if one point has two values of one field, or two noises."""
    values, label = rows.table, rows.label
    first: dict[tuple[float, ...], int] = {}
    kept = []
    for row, (place, rest) in enumerate(zip(np.round(values[:, :2] / SAME_PLACE), values[:, 2:], strict=True)):
        before = first.setdefault((*place, float(rows.of[row])), row)
        if before == row:
            kept.append(row)
        elif not np.array_equal(rest, values[before, 2:]):
            x, y = values[row, :2]
            places = f"{rows.place(before)} and {rows.place(row)}"
            raise InputError(
                f"{label}: {places} give different values or noise for the point ({x:g}, {y:g}); "
                "accepted: one row per point (of n repeated measurements their mean, with noise / sqrt(n))"
            )
    if len(kept) < len(values):
        _log.info("%s: %d rows that repeat another one are left out", label, len(values) - len(kept))
    return kept
