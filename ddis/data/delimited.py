"""Tables of numbers, and columns of words, in text files as people have them, of Excel in any country or of programs.

Text is UTF-8, or UTF-16 with its mark (Excel's "Unicode text"); the file may be packed (gzip, bzip2, xz, or a zip of one file).
Cells are separated by comma, semicolon or tab, as Excel's first line `sep=;` says or else the header. Numbers have a decimal
point; where cells are not separated by commas it may be a decimal comma, the same mark in the whole file. Lines that begin with #
are comments, and rows of empty cells are no rows.
"""

import bz2
import csv
import gzip
import io
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddis.errors import InputError
from ddis.reading import cannot_read, file_kind

LARGEST = 1 << 26  # bytes, unpacked
DELIMITERS = (",", ";", "\t")
ACCEPTED = "a header such as x,y,value and one row per observation"
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_MARKED = re.compile(r"[+-]?\d*[.,][\d.,]*([eE][+-]?\d+)?", re.ASCII)
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+", re.ASCII)
_UNPACK: dict[str, Callable[[io.BytesIO], Any]] = {"gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open}
_PARSER_ERRORS = (OSError, EOFError, RuntimeError, ValueError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)


class Table(NamedTuple):
    """Names of all columns in small letters, and the line of the file [m] that each row stood in, from 1.

    numbers [m] of each column, by name; words [m] of each column of text.
    """

    names: tuple[str, ...]
    numbers: dict[str, NDArray[np.float64]]
    words: dict[str, list[str]]
    lines: tuple[int, ...]


class _RefusedError(Exception):
    """What is wrong, without the name of the file."""


@dataclass(frozen=True)
class _Line:
    number: int
    text: str

    @property
    def is_comment(self) -> bool:
        return self.text.lstrip().startswith("#")

    def cells(self, delimiter: str) -> list[str]:
        try:
            [cells] = csv.reader([self.text], delimiter=delimiter, skipinitialspace=delimiter != "\t")
        except csv.Error as error:
            raise _RefusedError(f"line {self.number}: {error}") from error
        return [cell.strip() for cell in cells]


def read_table(path: Path, known: Sequence[str], text: Sequence[str] = (), gaps: Sequence[str] = ()) -> Table:
    """The table of a file whose header has some of the `known` names; columns named in `text` hold words.

    gaps: columns whose cells may be empty, which are NaN then.

    Raises InputError, which names the line.
    """
    try:
        return _parse(_lines(_unpacked(path)), known, text, gaps)
    except _RefusedError as error:
        raise InputError(f"{path}: {error}") from error


def _parse(lines: list[_Line], known: Sequence[str], text: Sequence[str], gaps: Sequence[str]) -> Table:
    delimiter, lines = _told_delimiter(lines)
    header, lines, delimiter = _header(lines, known, delimiter)
    names = [name.lower() for name in header.cells(delimiter)]
    while names and not names[-1]:
        names.pop()
    cells = [(line.number, line.cells(delimiter)) for line in lines]
    rows = [(number, row) for number, row in cells if any(row)]
    for number, row in rows:
        if len(row) < len(names) or any(row[len(names) :]):
            hint = (
                "; if these are decimal commas, separate the cells with semicolons"
                if len(row) > len(names) and delimiter == ","
                else ""
            )
            raise _RefusedError(
                f"line {number} has {len(row)} cells, and the header {len(names)} names ({', '.join(names)}){hint}"
            )
    words = {name: [row[place] for _, row in rows] for place, name in enumerate(names) if name in text}
    numeric = [place for place, name in enumerate(names) if name not in text]
    rows, counted = [(number, [row[place] for place in numeric]) for number, row in rows], [names[place] for place in numeric]
    values = _numbers(rows, counted, _decimal_mark(rows, counted, delimiter), gaps).reshape(len(rows), len(counted))
    return Table(tuple(names), dict(zip(counted, values.T, strict=True)), words, tuple(number for number, _ in rows))


def _told_delimiter(lines: list[_Line]) -> tuple[str | None, list[_Line]]:
    """The separator that the first line tells, as Excel understands it; None if it does not."""
    told = re.fullmatch(r'\s*"?sep=(.)"?\s*', lines[0].text, re.IGNORECASE) if lines else None
    if told is None:
        return None, lines
    if told[1] not in DELIMITERS:
        raise _RefusedError(f"line {lines[0].number}: sep={told[1]}; accepted: comma, semicolon or tab")
    return told[1], lines[1:]


def _header(lines: list[_Line], known: Sequence[str], delimiter: str | None) -> tuple[_Line, list[_Line], str]:
    """The line with the names, those with numbers, and what separates cells. numpy.savetxt writes the names as a comment."""
    comments = [line for line in lines if line.is_comment]
    lines = [line for line in lines if not line.is_comment]
    candidates = [(line, lines[1:]) for line in lines[:1]]
    above = [line for line in comments if lines and line.number < lines[0].number]
    candidates += [(_Line(line.number, line.text.lstrip(" #")), lines) for line in above]
    for line, rows in candidates:
        for choice in [delimiter] if delimiter else DELIMITERS:
            names = {name.lower() for name in line.cells(choice)}
            if len(names & set(known)) > 1:
                return line, rows, choice
    if not lines:
        raise _RefusedError(f"it is empty; accepted: {ACCEPTED}")
    first = lines[0]
    if all(_number(cell, ",") is not None for cell in re.split(r"[;\t ]+|,\s*", first.text.strip())):
        raise _RefusedError(f"line {first.number} is no header but numbers; accepted: first a line with the names of the columns")
    found = [mark for mark in DELIMITERS if mark in first.text]
    if not found:
        raise _RefusedError(
            f"line {first.number} ({_short(first.text)}) is no header; accepted: names separated by comma, semicolon or tab"
        )
    return first, lines[1:], delimiter or found[0]


def _decimal_mark(table: list[tuple[int, list[str]]], names: Sequence[str], delimiter: str) -> str:
    """Point or comma. Raises InputError where it cannot be known which is meant."""
    cells = [(n, name, cell) for n, row in table for name, cell in zip(names, row, strict=True)]
    marked = [(f"line {n}: {name} is {_short(cell)}", cell) for n, name, cell in cells if _MARKED.fullmatch(cell)]
    commas, points = ([(where, cell) for where, cell in marked if mark in cell] for mark in ",.")
    if not commas:
        return "."
    where, cell = next(((where, cell) for where, cell in commas if cell.count(",") + cell.count(".") > 1), commas[0])
    if cell.count(",") + cell.count(".") > 1:
        raise _RefusedError(f"{where}; accepted: numbers without separators of thousands")
    if delimiter == ",":
        raise _RefusedError(f"{where}; accepted: numbers with a decimal point, or cells separated by semicolons")
    if points:
        raise _RefusedError(f"{where}, and {points[0][0]}; accepted: one decimal mark, comma or point, in the whole file")
    if all(_THOUSANDS.fullmatch(cell) for _, cell in commas):
        raise _RefusedError(
            f"{where}, which may be {cell.replace(',', '.')} or {cell.replace(',', '')}; accepted: a decimal point"
        )
    return ","


def _number(cell: str, mark: str) -> float | None:
    text = cell.replace(mark, ".")
    return float(text) if _NUMBER.fullmatch(text) else None


def _numbers(rows: list[tuple[int, list[str]]], names: Sequence[str], mark: str, gaps: Sequence[str]) -> NDArray[np.float64]:
    """The cells as numbers, NaN for empty ones in the columns `gaps`. Raises for the first that is none."""
    values = [[_number(cell, mark) for cell in row] for _, row in rows]
    for position, ((number, row), found) in enumerate(zip(rows, values, strict=True)):
        empty = [name in gaps and not cell for name, cell in zip(names, row, strict=True)]
        wrong = [n for n, value in enumerate(found) if not empty[n] and (value is None or not np.isfinite(value))]
        if position == 0 and 0 < len(wrong) == len(row) and not re.search(r"\d|nan|inf", "".join(row), re.IGNORECASE):
            raise _RefusedError(
                f"line {number} ({_short(', '.join(row))}) holds no numbers; a row of units has no place here, remove it"
            )
        if wrong:
            name, cell = names[wrong[0]] or f"cell {wrong[0] + 1}", row[wrong[0]]
            raise _RefusedError(f"line {number}: {name} is {_short(cell) or 'empty'}; accepted: a finite number")
    return np.array(values, dtype=np.float64)  # None is NaN


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:37]}..."


def _lines(content: bytes) -> list[_Line]:
    """The lines of the text that are not blank."""
    kind = file_kind(content)
    if kind is not None or content[:256].lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"<":
        raise _RefusedError(f"it is {kind or 'HTML or XML'}, not text; accepted: a CSV file, as spreadsheets save it")
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    text = content.decode(encoding, "replace")  # what is no number is refused, and comments may hold what they will
    lines = [_Line(number, line) for number, line in enumerate(re.split(r"\r\n|\r|\n", text), start=1)]
    broken = next((line.number for line in lines if "\0" in line.text), None)
    if broken:
        raise _RefusedError(f"line {broken} holds NUL bytes; accepted: text in UTF-8, or UTF-16 with its mark")
    return [line for line in lines if line.text.strip()]


def _unpacked(path: Path) -> bytes:
    """The content of a file, or of the one file that is packed in it."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except (OSError, ValueError) as error:
        raise cannot_read(path, error) from error
    kind = file_kind(content)
    if kind in _UNPACK or kind == "zip":
        try:
            content = _unzipped(content) if kind == "zip" else _UNPACK[kind](io.BytesIO(content)).read(LARGEST + 1)
        except _PARSER_ERRORS as error:
            raise _RefusedError(f"it cannot be read as {kind}: {error}") from error
    if len(content) > LARGEST:
        raise _RefusedError(f"more than {LARGEST >> 20} MiB; accepted: at most one observation per node")
    return content


def _unzipped(content: bytes) -> bytes:
    """The one file in a zip archive, whatever a Mac has put beside it."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = [entry for entry in archive.infolist() if not entry.is_dir()]
        names = [entry.filename for entry in entries]
        for sign, kind in (("[Content_Types].xml", "an Excel workbook"), ("content.xml", "an OpenDocument spreadsheet")):
            if sign in names:
                raise _RefusedError(f"it is {kind}; save its sheet as CSV")
        if names and all(name.endswith(".npy") for name in names):
            raise _RefusedError(
                "it is a NumPy archive (.npz), not text; accepted: a CSV file, or in Python the arrays themselves"
            )
        kept = [entry for entry in entries if not re.match(r"(.*/)?(__MACOSX/|\._|\.DS_Store$)", entry.filename)]
        if len(kept) != 1:
            shown = ", ".join(entry.filename for entry in kept[:5])
            raise _RefusedError(f"it is a zip of {len(kept)} files ({shown or 'none'}); accepted: one, or the CSV file itself")
        if kept[0].flag_bits & 1:
            raise _RefusedError(f"{kept[0].filename} in it is encrypted; unpack it first")
        with archive.open(kept[0]) as file:
            return file.read(LARGEST + 1)
