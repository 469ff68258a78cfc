"""A user's own observations of a solution, and of the coefficient itself: read and checked before any work.

Columns of a CSV file or a data frame, in any order: the coordinates (x, y; on a line x; in space and time x, t), value, and
optionally noise, the standard deviation of the value (0 where the column is missing), of, the field that is observed, solution
(also where the column is missing or empty) or coefficient, and channel, of a field that has several (from 0; empty: 0).
Coordinates are in units of the domain, value and noise in those of the field. One that the field lacks is left empty.
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
from ddis.grid import Space

_log = logging.getLogger(__name__)

Array = NDArray[np.float64]
VALUE, NOISE, OF, CHANNEL = "value", "noise", "of", "channel"
FIELDS = {"": False, "solution": False, "coefficient": True}  # what stands in the column of: whether it is the coefficient
SAME_PLACE = 1e-6  # of the domain's side; coordinates written with seven digits differ by less


@dataclass(frozen=True)
class Observations:
    """m observations at different points of each field; noise is a standard deviation.

    axes      names of the coordinates
    places    [m, axes]; NaN where the observed field lacks the axis
    value, noise [m]
    of        which of them are of the coefficient, bool [m]
    channel   of the observed field [m]
    """

    axes: tuple[str, ...]
    places: Array
    value: Array
    noise: Array
    of: NDArray[np.bool_]
    channel: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.value)

    def table(self) -> Array:
        """Columns of the coordinates, value, noise, [m, axes + 2]."""
        return np.column_stack([self.places, self.value, self.noise])

    def columns(self, space: Space) -> NDArray[np.int64]:
        """Which of the coordinates fields of a space have."""
        return np.array([self.axes.index(axis) for axis in space.grid.axes])

    def where(self, row: int) -> str:
        """The point, and field and channel if they are not the usual ones, for messages."""
        channel = f", channel {self.channel[row]}" * bool(self.channel.any())
        return _point(self.places[row]) + ", of the coefficient" * bool(self.of[row]) + channel


def read_observations(source: Any, spaces: tuple[Space, Space]) -> Observations:
    """Observations of fields of these spaces, coefficient and solution, in the order of their rows; equal rows are merged.

    Args:
        source: path of a CSV file (see `ddis.data.delimited`); data frame; array [m, d + 1 or d + 2] of the d coordinates of the
            solution, value and noise; or (mask, solution), arrays [*shape].

    Raises InputError: what cannot be read or has other columns or shapes; points outside the domain; values that are not finite;
    negative noise; a field or channel that is not there; one point with different values of one field; no observation, or more of
    a field than its nodes.
    """
    rows = _rows(source, spaces)
    _check_rows(rows)
    kept = _distinct(rows)
    data = rows.data
    of, channel = data.of[kept], data.channel[kept]
    coefficient, solution = spaces
    # Of the nodes of a solution those whose value is not given by the boundary.
    inside = (int(solution.grid.interior.sum()) * solution.channels, int(coefficient.grid.nodes.sum()) * coefficient.channels)
    counts = int((~of).sum()), int(of.sum())
    for what, count, nodes, space in zip(("", " of the coefficient"), counts, inside, spaces[::-1], strict=True):
        if count > nodes or not kept:
            found = f"{count} observations{what} are more than there are nodes" if kept else "no observation"
            raise InputError(f"{rows.label}: {found}; accepted: 1 to {nodes} at {space.grid} nodes")
    return Observations(data.axes, data.places[kept], data.value[kept], data.noise[kept], of, channel)


@dataclass(frozen=True)
class _Rows:
    """All rows of a source, and how messages call the source and its rows: by lines of a file, else by number."""

    data: Observations
    spaces: tuple[Space, Space]
    label: str
    lines: Sequence[int] | None = None

    def place(self, row: int) -> str:
        return _place(row, self.lines)

    def fields(self) -> list[tuple[str, Space, NDArray[np.int64], NDArray[np.int64]]]:
        """Name and space of each field, its rows, and the columns of the coordinates that it has."""
        named = zip(("coefficient", "solution"), self.spaces, (self.data.of, ~self.data.of), strict=True)
        return [(name, s, np.flatnonzero(own), self.data.columns(s)) for name, s, own in named]


def _place(row: int, lines: Sequence[int] | None) -> str:
    return f"row {row + 1}" if lines is None else f"line {lines[row]}"


def _point(place: Array) -> str:
    return f"({', '.join(f'{x:g}' for x in place if np.isfinite(x))})"


def axes_of(spaces: tuple[Space, Space]) -> tuple[str, ...]:
    """Names of the coordinates of solution and coefficient."""
    return tuple(dict.fromkeys((*spaces[1].grid.axes, *spaces[0].grid.axes)))


def _optional(spaces: tuple[Space, Space]) -> tuple[str, ...]:
    return (NOISE, OF, CHANNEL) if max(space.channels for space in spaces) > 1 else (NOISE, OF)


def _rows(source: Any, spaces: tuple[Space, Space]) -> _Rows:
    axes, label, lines = axes_of(spaces), "observations", None
    if isinstance(source, str | Path):
        label = str(source)
        gaps = (*(a for a in axes if not all(a in space.grid.axes for space in spaces)), CHANNEL)
        names, numbers, words, lines = read_table(Path(source), (*axes, VALUE, NOISE, CHANNEL), (OF,), gaps)
        given: Sequence[Any] = words.get(OF, [""] * len(lines))
    else:
        frame = _frame(source, spaces, label)
        names, given = tuple(str(name).strip().lower() for name in frame.columns), _words(frame)
        numbers = {}
    of = _fields(given, label, lines)
    _check_names(names, of, spaces, label)
    if lines is None:
        numbers = _numbers(frame, names, label)
    missing = {VALUE: 0.0, NOISE: 0.0, CHANNEL: 0.0}
    columns = {name: numbers.get(name, np.full(len(of), missing.get(name, np.nan))) for name in (*axes, *missing)}
    places = np.stack([columns[name] for name in axes], axis=1)
    channel = _channels(columns[CHANNEL], of, spaces, label, lines)
    return _Rows(Observations(axes, places, columns[VALUE], columns[NOISE], of, channel), spaces, label, lines)


def _fields(words: Sequence[Any], label: str, lines: Sequence[int] | None = None) -> NDArray[np.bool_]:
    """Which rows [m] are of the coefficient. Raises InputError for a word that names no field."""
    for row, word in enumerate(words):
        if str(word).strip().lower() not in FIELDS:
            raise InputError(f"{label}: {_place(row, lines)}: of is {word}; accepted: solution (or empty), coefficient")
    return np.array([FIELDS[str(word).strip().lower()] for word in words], dtype=bool)


def _channels(
    numbers: Array, of: NDArray[np.bool_], spaces: tuple[Space, Space], label: str, lines: Sequence[int] | None
) -> NDArray[np.int64]:
    """The channel of each row, 0 where none is given. Raises InputError for one that the field does not have."""
    channel = np.nan_to_num(numbers)
    most = np.where(of, spaces[0].channels, spaces[1].channels)
    wrong = np.flatnonzero((channel < 0) | (channel >= most) | (channel % 1 != 0))
    if wrong.size:
        row, name = wrong[0], "coefficient" if of[wrong[0]] else "solution"
        accepted = f"0 to {most[row] - 1}" if most[row] > 1 else "0 (or empty)"
        raise InputError(f"{label}: {_place(row, lines)}: channel is {channel[row]:g}; accepted for the {name}: {accepted}")
    return channel.astype(np.int64)


def _words(table: pd.DataFrame) -> list[Any]:
    """The column of, empty where it or its value is missing."""
    names = [str(name).strip().lower() for name in table.columns]
    if OF not in names:
        return [""] * len(table)
    given = table.iloc[:, names.index(OF)]
    return ["" if missing else word for word, missing in zip(given, given.isna(), strict=True)]


def _frame(source: Any, spaces: tuple[Space, Space], label: str) -> pd.DataFrame:
    """The columns as they are given in Python."""
    if isinstance(source, pd.DataFrame):
        return source
    if isinstance(source, Mapping):
        try:
            return pd.DataFrame(dict(source))
        except ValueError as error:
            raise InputError(f"{label}: {error}; accepted: columns of one length") from error
    if isinstance(source, tuple):
        return _from_mask(source, spaces[1])
    array, names = np.asarray(source), [*spaces[1].grid.axes, VALUE, NOISE]
    fewest = len(names) - 1
    if array.ndim != 2 or array.shape[1] not in (fewest, fewest + 1):
        accepted = f"[m, {fewest}] ({', '.join(names[:-1])}) or [m, {fewest + 1}] (and noise)"
        raise InputError(f"{label}: array of shape {array.shape}; accepted: {accepted}")
    return pd.DataFrame(array, columns=names[: array.shape[1]])


def _from_mask(source: tuple[Any, ...], space: Space) -> pd.DataFrame:
    """Noiseless observations at the nodes of a mask, as in the files of samples."""
    shapes = [np.shape(part) for part in source]
    if shapes != [space.shape] * 2:
        raise InputError(f"observations: shapes {shapes}; accepted: mask and solution, both {space.shape}")
    mask, solution = (np.asarray(part) for part in source)
    if mask.dtype != bool:
        raise InputError(f"observations: a mask of {mask.dtype}; accepted: True where observed, else False")
    indices = np.nonzero(mask)
    places = indices[mask.ndim - len(space.grid.shape) :]
    columns = {name: axis[i] for name, axis, i in zip(space.grid.axes, space.grid.coordinates(), places, strict=True)}
    channel = {CHANNEL: indices[0]} if space.channels > 1 else {}
    return pd.DataFrame({**columns, VALUE: solution[mask], **channel})


def _check_names(names: Sequence[str], of: NDArray[np.bool_], spaces: tuple[Space, Space], label: str) -> None:
    """Raises InputError unless there are the coordinates of the fields that are observed, the value, and nothing unknown."""
    observed = [s for s, there in zip(spaces, (of.any(), not of.all() or not of.size), strict=True) if there]
    needed = [*dict.fromkeys(axis for space in observed for axis in space.grid.axes), VALUE]
    known = {*axes_of(spaces), VALUE, *_optional(spaces)}
    if len(set(names)) < len(names) or not set(needed) <= set(names) <= known:
        *first, last = _optional(spaces)
        accepted = f"{', '.join(needed)}, and optionally {', '.join(first)} and {last}"
        raise InputError(f"{label}: columns {', '.join(names) or 'none'}; accepted: {accepted}")


def _numbers(table: pd.DataFrame, names: Sequence[str], label: str) -> dict[str, Array]:
    """The columns as numbers, by name; NaN where the coordinate or channel of a data frame is missing."""
    columns = {}
    for place, name in enumerate(names):
        if name == OF:
            continue
        given = table.iloc[:, place]
        numbers = pd.to_numeric(given, errors="coerce").to_numpy(np.float64, na_value=np.nan)
        allowed = given.isna() if name not in (VALUE, NOISE) else np.zeros(len(given), dtype=bool)
        wrong = np.flatnonzero(~np.isfinite(numbers) & ~np.asarray(allowed))
        if wrong.size:
            raise InputError(f"{label}: row {wrong[0] + 1}: {name} is {given.iloc[wrong[0]]}; accepted: a finite number")
        columns[name] = numbers
    return columns


def _check_rows(rows: _Rows) -> None:
    """Raises InputError for wrong coordinates and negative noise; ends of periodic axes become their beginnings."""
    data, label = rows.data, rows.label
    for name, space, own, columns in rows.fields():
        for column, axis in enumerate(data.axes):
            given = np.isfinite(data.places[own, column])
            wrong = own[~given if column in columns else given]
            if wrong.size:
                found = "empty" if column in columns else f"{data.places[wrong[0], column]:g}"
                accepted = "a finite number" if column in columns else f"empty, as the {name} has no {axis}"
                raise InputError(f"{label}: {rows.place(wrong[0])}: {axis} is {found}; accepted: {accepted}")
        points, grid = data.places[np.ix_(own, columns)], space.grid
        outside = own[~grid.contains(points)]
        if outside.size:
            place, share = rows.place(outside[0]), f"{outside.size} of {len(data)}"
            ends = ", ".join(f"{axis} from 0 to {length:g}" for axis, length in zip(grid.axes, grid.lengths, strict=True))
            masked = "" if grid.mask is None else ", between nodes of the domain"
            raise InputError(
                f"{label}: {place}: point {_point(data.places[outside[0]])} is outside the domain ({share} are); "
                f"accepted: {ends}{masked}, in units of the domain"
            )
        last = (1 - SAME_PLACE) * np.array(grid.lengths)
        data.places[np.ix_(own, columns)] = np.where(np.array(grid.periodic) & (points > last), 0.0, points)
    negative = np.flatnonzero(data.noise < 0)
    if negative.size:
        place, noise = rows.place(negative[0]), data.noise[negative[0]]
        raise InputError(f"{label}: {place}: noise {noise:g}; accepted: a standard deviation, 0 or more")


def _distinct(rows: _Rows) -> list[int]:
    """The rows that repeat no earlier one. Raises InputError if one point has two values of one field, or two noises."""
    data, label = rows.data, rows.label
    first: dict[tuple[float, ...], int] = {}
    kept = []
    rounded = np.round(np.nan_to_num(data.places) / SAME_PLACE)
    for row, (place, value, noise) in enumerate(zip(rounded, data.value, data.noise, strict=True)):
        before = first.setdefault((*place, float(data.of[row]), float(data.channel[row])), row)
        if before == row:
            kept.append(row)
        elif (value, noise) != (data.value[before], data.noise[before]):
            places = f"{rows.place(before)} and {rows.place(row)}"
            raise InputError(
                f"{label}: {places} give different values or noise for the point {_point(data.places[row])}; "
                "accepted: one row per point (of n repeated measurements their mean, with noise / sqrt(n))"
            )
    if len(kept) < len(data):
        _log.info("%s: %d rows that repeat another one are left out", label, len(data) - len(kept))
    return kept
