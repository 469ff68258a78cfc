"""The table of errors for reading: Markdown, LaTeX and HTML of the columns that are read most, all three from the same cells."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ddis.data.subsets import percent_name
from ddis.evaluation.bootstrap import HOW
from ddis.evaluation.published import PUBLISHED_SETTING
from ddis.evaluation.table import KEY
from ddis.evaluation.text import Table, grouped, known
from ddis.text import decimals, latex_table, pipe_table, tex, with_interval


def caption(table: Table, study: str, seed: int, notes: Sequence[str] = ()) -> str:
    """How the table was made and how it is read: study, seed, sizes, devices, failures; `notes` are further sentences."""
    devices = ", ".join(sorted({row["device"] for row in known(table, "device")})) or "unknown"
    sentences = [f"Errors of the coefficient, study {study}, seed {seed}, device {devices}.", *sizes(table)]
    sentences.append("Relative l2 errors in percent, +- standard error over the test fields; E_s: spectral error of samples.")
    if known(table, "l2_limit"):
        sentences.append("Limit: l2 of the closed-form posterior mean, which no estimate beats on average.")
    if known(table, "coverage90"):
        sentences.append("Coverage: share of nodes inside the 50 and 90 % intervals (K of 4 or more).")
    if known(table, "mode_share"):
        sentences.append(
            "At the truth's sign: share of samples nearer to a than to -a, which explain the data equally; pairs of both signs: "
            f"share of pairs of a field's samples that have different ones; both 0.5 in the posterior. In brackets: {HOW}."
        )
    sentences.append(
        "Bold: smallest of the methods at the same percent of pairs, exact posterior and runs through the solver aside."
    )
    sentences += failures(table)
    if known(table, "l2_paper"):
        sentences.append(PUBLISHED_SETTING)
    return " ".join([*sentences, *notes])


def to_markdown(table: Table, caption: str) -> str:
    """A pipe table of the columns that are read most, under its caption."""
    columns, rows = _readable(table)
    body = [[f"**{cell.text}**" if cell.best else cell.text for cell in row] for row in rows]
    return "\n".join([caption, "", pipe_table([c.title for c in columns], body, [c.number for c in columns]), ""])


def to_latex(table: Table, caption: str, label: str = "tab:errors") -> str:
    """A table environment (packages booktabs, graphicx) of the columns that are read most."""
    columns, rows = _readable(table)
    body = [[rf"\textbf{{{tex(cell.text)}}}" if cell.best else tex(cell.text) for cell in row] for row in rows]
    return latex_table([c.title for c in columns], body, caption, label, [c.number for c in columns])


def to_html(table: Table) -> str:
    """A table element of the columns that fit on a page; the caption is the page's."""
    columns, rows = _readable(table, page=True)
    head = "".join(f'<th scope="col"{_css(column)}>{html.escape(column.title)}</th>' for column in columns)
    body = "".join("<tr>" + "".join(_td(*pair) for pair in zip(row, columns, strict=True)) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


@dataclass(frozen=True)
class _Cell:
    text: str
    best: bool = False


@dataclass(frozen=True)
class _Column:
    title: str
    cell: Callable[[Any], str]
    number: bool = True
    best: str | None = None
    """Column of the table of errors whose smallest value among competitors is set in bold."""
    page: bool = True
    """Whether it is also in the report."""


def _number(name: str, digits: int) -> Callable[[Any], str]:
    return lambda row: "" if row[name] is None else decimals(row[name], digits)


def _with_error(name: str, digits: int) -> Callable[[Any], str]:
    def cell(row: Any) -> str:
        if row[name] is None:
            return ""
        value, error = decimals(row[name], digits), row[f"{name}_se"]
        return value if error is None else f"{value} ± {decimals(error, digits)}"

    return cell


def _with_ends(name: str) -> Callable[[Any], str]:
    return lambda row: with_interval(row, name, f"{name}_low", f"{name}_high", digits=2)


def _plain(name: str) -> Callable[[Any], str]:
    return lambda row: "" if row[name] is None else str(row[name])


def _significant(name: str) -> Callable[[Any], str]:
    return lambda row: "" if row[name] is None else f"{row[name]:.3g}"


_READABLE = (
    _Column("problem", _plain("problem"), number=False),
    _Column("observation", _plain("observation"), number=False),
    _Column("% pairs", lambda row: percent_name(row["percent"])),
    _Column("pairs", _plain("pairs"), page=False),
    _Column("run", _plain("run"), number=False),
    _Column("K", _plain("n_samples")),
    _Column("l2 sample, %", _with_error("l2_sample", 2), best="l2_sample"),
    _Column("l2 mean of K, %", _with_error("l2_mean", 2)),
    _Column("limit, %", _number("l2_limit", 2)),
    _Column("error rate, %", _number("error_rate", 2), best="error_rate"),
    _Column("E_s", _with_error("spectral", 3), best="spectral"),
    _Column("cover 50", _number("coverage50", 2), page=False),
    _Column("cover 90", _number("coverage90", 2)),
    _Column("CRPS", _significant("crps"), page=False),
    _Column("spread / skill", _number("spread_skill", 2), page=False),
    _Column("at the truth's sign", _with_ends("mode_share")),
    _Column("pairs of both signs", _with_ends("mode_pairs")),
    _Column("s / field", _significant("seconds_per_field")),
    _Column("published l2, %", _number("l2_paper", 2), page=False),
    _Column("published E_s", _number("spectral_paper", 3), page=False),
)


def _readable(table: Table, page: bool = False) -> tuple[list[_Column], list[list[_Cell]]]:
    """The columns that hold anything, and their cells row by row; for the report fewer (`page`)."""
    contestants = [row for row in table if row["method"] != "exact" and row["operator"] not in ("solver", "corrected")]
    columns, cells = [], []
    for column in _READABLE:
        texts = [column.cell(row) for row in table]
        if not any(texts) or (page and not column.page):
            continue
        best = []
        if column.best:
            for rivals in grouped(known(contestants, column.best), *KEY).values():
                smallest = min(row[column.best] for row in rivals)
                best += [row for row in rivals if row[column.best] == smallest]
        columns.append(column)
        cells.append([_Cell(text, any(row is other for other in best)) for text, row in zip(texts, table, strict=True)])
    return columns, [list(row) for row in zip(*cells, strict=True)]


def sizes(table: Table) -> list[str]:
    """One sentence per problem and observation: resolution, observations, noise, test fields."""
    sentences = []
    keys = ("problem", "observation", "resolution", "observations", "noise", "n_fields")
    for problem, observation, nodes, count, noise, fields in grouped(table, *keys):
        level = "unknown noise" if noise is None else "no noise" if noise == 0 else f"noise {noise:g} std(u)"
        sentences.append(
            f"{problem}, {observation}: {nodes} nodes per axis, {count} observations, {level}, {fields} test fields."
        )
    return sentences


def failures(table: Table) -> list[str]:
    """One sentence per row whose figures leave out test fields."""
    return [
        f"{row['run']} at {percent_name(row['percent'])} % of pairs ({row['problem']}, {row['observation']}): "
        f"{row['n_failed']} of {row['n_fields']} fields failed and are left out."
        for row in table
        if row["n_failed"]
    ]


def _css(column: _Column) -> str:
    return ' class="number"' if column.number else ""


def _td(cell: _Cell, column: _Column) -> str:
    text = html.escape(cell.text)
    return f"<td{_css(column)}>" + (f"<strong>{text}</strong>" if cell.best else text) + "</td>"
