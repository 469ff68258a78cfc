"""A section's table: a line for each run, a column for each place along its axis and measure, published figures in brackets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ddis.data.subsets import percent_name
from ddis.evaluation.paper.sections import Axis, Entry, Section
from ddis.evaluation.published import PUBLISHED_PHYSICS
from ddis.evaluation.table import COLUMNS
from ddis.evaluation.text import Table
from ddis.text import csv_text, decimals, latex_table, pipe_table, tex

MEASURES = {
    "l2_sample": ("l2 of a sample, %", 1),
    "l2_mean": ("l2 of the mean of K, %", 1),
    "spectral": ("E_s", 3),
    "error_rate": ("wrong nodes, %", 2),
    "coverage90": ("coverage of 90 %", 2),
    "seconds_per_sample": ("s per sample", 3),
}
_UNITS: dict[Axis, str] = {"percent": "{:g} %", "values": "{:g} values", "noise": "noise {:g}", "budget": "{:.0f} units"}
_PAPER = {"l2_sample": "l2_paper", "spectral": "spectral_paper"}
CSV = ["settings", *(name for name in COLUMNS if name not in ("misfit", "peak_memory_mb", "solver_calls"))]

Key = tuple[str, str, str, str]
Rows = Mapping[Key, Mapping[str, Any]]
"""Rows of the table of errors by problem, observation, run and percent; None in what does not apply."""


@dataclass
class Line:
    """A run of a problem; cells by place and measure."""

    problem: str
    label: str
    entries: list[Entry] = field(default_factory=list)
    samples: list[int] = field(default_factory=list)
    cells: dict[tuple[str | float, str], str] = field(default_factory=dict)


def rows_of(table: Table) -> dict[Key, Mapping[str, Any]]:
    """The table of errors, by the key of `Entry`."""
    return {(r["problem"], r["observation"], r["run"], percent_name(r["percent"])): r for r in table}


def published(entry: Entry, row: Mapping[str, Any], measure: str) -> float | None:
    """The published figure for the experiment that an entry is of."""
    if entry.operator == "physics" and measure == "l2_sample" and (entry.method, entry.percent) == ("ddis", "1"):
        return PUBLISHED_PHYSICS.get(entry.pde) if entry.problem == entry.pde else None
    plain = entry.base and not entry.differs and entry.operator == "own"
    return row[_PAPER[measure]] if plain and measure in _PAPER else None


def lines(section: Section, entries: Sequence[Entry], rows: Rows) -> list[Line]:
    """The lines of a section, in the order of the configuration."""
    found: dict[tuple[str, str], Line] = {}
    for entry in entries:
        problem, place = "" if section.across == "problem" else entry.problem, section.place(entry)
        line = found.setdefault((problem, section.label(entry)), Line(problem, section.label(entry)))
        if any(known == place for known, _ in line.cells):  # two runs of one method
            line = found.setdefault((problem, entry.run), Line(problem, entry.run))
        row = rows[entry.key]
        line.entries.append(entry)
        line.samples.append(row["n_samples"])
        for measure in section.measures:
            line.cells[place, measure] = cell(row, measure, published(entry, row, measure))
    return list(found.values())


def cell(row: Mapping[str, Any], measure: str, paper: float | None = None) -> str:
    """`value ± error (published)`."""
    value, error, digits = row[measure], row.get(f"{measure}_se"), MEASURES[measure][1]
    if value is None:
        text = "failed" if row["n_failed"] == row["n_fields"] else ""
    elif measure == "seconds_per_sample":
        text = f"{value:.3g}"
    else:
        text = decimals(value, digits) + ("" if error is None else f" ± {decimals(error, digits)}")
    return text if paper is None else f"{text} ({paper:g})".strip()


def head_and_body(section: Section, entries: Sequence[Entry], rows: Rows) -> tuple[list[str], list[list[str]]]:
    """Titles and cells as text; columns that are empty are left out."""
    shown, places = lines(section, entries, rows), section.places(entries)
    wanted = [(place, measure) for place in places for measure in section.measures]
    wanted = [key for key in wanted if any(line.cells.get(key) for line in shown)]
    named = len({line.problem for line in shown}) > 1
    head = ["problem"] * named + ["run", "K", *(title(section, *key) for key in wanted), "settings"]
    body = [
        [line.problem] * named + [line.label, _join(line.samples), *(line.cells.get(key, "") for key in wanted), settings(line)]
        for line in shown
    ]
    return head, body


def title(section: Section, place: str | float, measure: str) -> str:
    """Of a column."""
    what = MEASURES[measure][0]
    if section.across is None:
        return what
    where = place_name(section.across, place)
    return where if len(section.measures) == 1 else f"{where}: {what}"


def place_name(axis: Axis, place: str | float) -> str:
    return str(place) if axis == "problem" else _UNITS[axis].format(place)


def settings(line: Line) -> str:
    """What is not at its default in the runs of a line; values that differ between its columns one after the other."""
    values: dict[str, list[str]] = {}
    for entry in line.entries:
        for name, value in entry.settings:
            values.setdefault(name, []).append(value)
    operators = {"solver": "solver", "physics": "physics loss", "other": "another operator"}
    words = [operators[entry.operator] for entry in line.entries[:1] if entry.operator in operators]
    return ", ".join(words + [f"{name} {_join(found)}" for name, found in values.items()])


def to_markdown(section: Section, entries: Sequence[Entry], rows: Rows) -> str:
    head, body = head_and_body(section, entries, rows)
    at = head.index("run")
    named = [[f"`{text}`" if column == at else text for column, text in enumerate(line)] for line in body]
    return pipe_table(head, named, _numbers(head))


def to_latex(section: Section, entries: Sequence[Entry], rows: Rows, caption: str) -> str:
    head, body = head_and_body(section, entries, rows)
    return latex_table(head, [[tex(text) for text in line] for line in body], caption, f"tab:{section.name}", _numbers(head))


def to_csv(entries: Sequence[Entry], rows: Rows) -> str:
    """The rows of the table of errors that a section shows, with their settings."""
    own = [{"settings": settings(Line("", "", [e]))} | dict(rows[e.key]) | {"percent": e.percent} for e in entries]
    return csv_text(({name: row[name] for name in CSV} for row in own), CSV)


def _numbers(head: Sequence[str]) -> list[bool]:
    return [name not in ("problem", "run", "settings") for name in head]


def _join(values: Sequence[Any]) -> str:
    return ", ".join(dict.fromkeys(map(str, values)))
