"""The table of errors: one row per problem, observation, run and percent of pairs; as CSV, Markdown, LaTeX and HTML.

The data frame and the CSV hold every column as a plain number; Markdown, LaTeX and HTML show the columns that are read most,
with standard errors over the test fields, all three from the same cells. Whatever does not apply is an empty cell.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ddis.data.store import Samples
from ddis.data.subsets import percent_name
from ddis.evaluation import metrics
from ddis.evaluation.calibration import calibration
from ddis.evaluation.text import read_table
from ddis.text import csv_text, latex_table, pipe_table, tex

COLUMNS: dict[str, str] = {
    "problem": "string",
    "pde": "string",
    "run": "string",
    "method": "string",
    "operator": "string",
    "percent": "Float64",
    "pairs": "Int64",
    "observation": "string",
    "observations": "Int64",
    "noise": "Float64",
    "resolution": "Int64",
    "n_fields": "Int64",
    "n_samples": "Int64",
    "n_failed": "Int64",
    "l2_sample": "Float64",
    "l2_sample_se": "Float64",
    "l2_mean": "Float64",
    "l2_mean_se": "Float64",
    "l2_limit": "Float64",
    "spectral": "Float64",
    "spectral_se": "Float64",
    "error_rate": "Float64",
    "coverage50": "Float64",
    "coverage90": "Float64",
    "crps": "Float64",
    "spread_skill": "Float64",
    "misfit": "Float64",
    "prior_evaluations": "Float64",
    "operator_evaluations": "Float64",
    "seconds_per_field": "Float64",
    "seconds_per_sample": "Float64",
    "peak_memory_mb": "Float64",
    "device": "string",
    "l2_paper": "Float64",
    "spectral_paper": "Float64",
}
"""Columns of the table in their order, with their pandas types."""

PUBLISHED: dict[tuple[str, str, float], tuple[float, float | None]] = {
    ("poisson", "ddis", 100): (15.78, 0.074),
    ("helmholtz", "ddis", 100): (15.08, 0.044),
    ("navier-stokes", "ddis", 100): (8.93, 0.165),
    ("poisson", "fundps", 100): (19.96, 0.192),
    ("helmholtz", "fundps", 100): (17.16, 0.140),
    ("navier-stokes", "fundps", 100): (8.99, 0.382),
    ("poisson", "diffusionpde", 100): (21.10, None),
    ("helmholtz", "diffusionpde", 100): (19.07, None),
    ("navier-stokes", "diffusionpde", 100): (9.63, None),
    ("poisson", "ddis", 1): (18.70, None),
    ("helmholtz", "ddis", 1): (16.40, None),
    ("navier-stokes", "ddis", 1): (12.05, None),
    ("poisson", "fundps", 1): (35.81, None),
    ("helmholtz", "fundps", 1): (41.69, None),
    ("navier-stokes", "fundps", 1): (13.65, None),
}
"""(pde, method, percent of pairs) -> relative l2 in percent, spectral error; figures of arXiv 2601.23280."""

PUBLISHED_SETTING = (
    "Published figures (arXiv 2601.23280; DiffusionPDE: its 2,000-step version) are for 128 x 128 nodes, 500 noiseless "
    "observations, 50,000 training pairs and networks of that paper's size: compare them with a row only if its "
    "setting, given above, is the same."
)

KEY = ["problem", "observation", "percent"]
"""Rows that agree in these columns compete with each other."""

_FROM_ATTRIBUTES = (
    *("problem", "pde", "run", "method", "operator", "percent", "pairs", "observation", "noise"),
    *("prior_evaluations", "operator_evaluations", "seconds_per_field", "seconds_per_sample", "peak_memory_mb", "device"),
)


def error_row(samples: Samples, limits: np.ndarray | None) -> dict[str, Any]:
    """The row of one file of samples; None in what does not apply.

    limits: errors [n] of the closed-form mean on the same fields, in percent (see `closed_form_errors`), None where unknown.
    Fields with a value that is not finite in their samples, or in the solutions of these, count in `n_failed` and are left
    out of every figure. l2* and error_rate are in percent, coverage in [0, 1], crps in units of the coefficient, misfit in
    units of the standard deviation of the training solutions (attribute `solution_std`), as `noise` is.
    """
    (count, size), resolution = samples.coefficient.shape[:2], samples.coefficient.shape[-1]
    kept = ~samples.failed
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row |= {name: samples.attributes.get(name) for name in _FROM_ATTRIBUTES}
    row |= {"observations": samples.observations, "resolution": resolution, "n_fields": count, "n_samples": size}
    row["n_failed"] = int(count - kept.sum())
    if kept.any():
        row["l2_limit"] = None if limits is None else float(limits[kept].mean())
        row |= _errors(samples, kept) | _calibration(samples, kept)
    return row | _published(row)


def closed_form_errors(samples: Samples) -> np.ndarray:
    """Relative l2 errors [n] in percent of the stored mean: the limit, for samples of the method `exact`."""
    return 100 * metrics.relative_l2(samples.mean, samples.coefficient_true, samples.spaces[0])


def error_table(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows of `error_row` as a data frame with the columns of `COLUMNS`, by problem, observation and percent, then as given."""
    cells = {name: pd.Series([_present(row[name]) for row in rows], dtype=kind) for name, kind in COLUMNS.items()}
    return pd.DataFrame(cells).sort_values(KEY, kind="stable", ignore_index=True)


def to_csv(table: pd.DataFrame) -> str:
    """All columns, numbers with every digit that tells them apart, so that the same numbers always give the same text."""
    text = table.astype(object).where(table.notna(), "")
    text["percent"] = [percent_name(percent) for percent in table["percent"]]
    return csv_text(({str(name): value for name, value in row.items()} for row in text.to_dict("records")), list(COLUMNS))


def from_csv(path: Path | str) -> pd.DataFrame:
    """The data frame of a table written by `to_csv`. Raises InputError."""
    return read_table(path, COLUMNS)


def caption(table: pd.DataFrame, study: str, seed: int, notes: Sequence[str] = ()) -> str:
    """How the table was made and how it is read: study, seed, sizes, devices, failures; `notes` are further sentences."""
    devices = ", ".join(sorted(table["device"].dropna().unique())) or "unknown"
    sentences = [f"Errors of the coefficient, study {study}, seed {seed}, device {devices}.", *_sizes(table)]
    sentences.append("Relative l2 errors in percent, +- standard error over the test fields; E_s: spectral error of samples.")
    if table["l2_limit"].notna().any():
        sentences.append("Limit: l2 of the closed-form posterior mean, which no estimate beats on average.")
    if table["coverage90"].notna().any():
        sentences.append("Coverage: share of nodes inside the 50 and 90 % intervals (K of 4 or more).")
    sentences.append(
        "Bold: smallest of the methods at the same percent of pairs, exact posterior and runs through the solver aside."
    )
    for row in table[table["n_failed"] > 0].to_dict("records"):
        sentences.append(
            f"{row['run']} at {percent_name(row['percent'])} % of pairs ({row['problem']}, {row['observation']}): "
            f"{row['n_failed']} of {row['n_fields']} fields failed and are left out."
        )
    if table["l2_paper"].notna().any():
        sentences.append(PUBLISHED_SETTING)
    return " ".join([*sentences, *notes])


def to_markdown(table: pd.DataFrame, caption: str) -> str:
    """A pipe table of the columns that are read most, under its caption."""
    columns, rows = _readable(table)
    body = [[f"**{cell.text}**" if cell.best else cell.text for cell in row] for row in rows]
    return "\n".join([caption, "", pipe_table([c.title for c in columns], body, [c.number for c in columns]), ""])


def to_latex(table: pd.DataFrame, caption: str, label: str = "tab:errors") -> str:
    """A table environment (packages booktabs, graphicx) of the columns that are read most."""
    columns, rows = _readable(table)
    body = [[rf"\textbf{{{tex(cell.text)}}}" if cell.best else tex(cell.text) for cell in row] for row in rows]
    return latex_table([c.title for c in columns], body, caption, label, [c.number for c in columns])


def to_html(table: pd.DataFrame) -> str:
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
    """Column of the data frame whose smallest value among competitors is set in bold."""
    page: bool = True
    """Whether it is also in the report."""


def _decimals(value: float, digits: int) -> str:
    return f"{value:.3g}" if abs(value) >= 1e4 else f"{value:.{digits}f}"


def _number(name: str, digits: int) -> Callable[[Any], str]:
    return lambda row: "" if pd.isna(row[name]) else _decimals(float(row[name]), digits)


def _with_error(name: str, digits: int) -> Callable[[Any], str]:
    def cell(row: Any) -> str:
        if pd.isna(row[name]):
            return ""
        value, error = _decimals(float(row[name]), digits), row[f"{name}_se"]
        return value if pd.isna(error) else f"{value} ± {_decimals(float(error), digits)}"

    return cell


def _plain(name: str) -> Callable[[Any], str]:
    return lambda row: "" if pd.isna(row[name]) else str(row[name])


def _significant(name: str) -> Callable[[Any], str]:
    return lambda row: "" if pd.isna(row[name]) else f"{float(row[name]):.3g}"


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
    _Column("s / field", _significant("seconds_per_field")),
    _Column("published l2, %", _number("l2_paper", 2), page=False),
    _Column("published E_s", _number("spectral_paper", 3), page=False),
)


def _readable(table: pd.DataFrame, page: bool = False) -> tuple[list[_Column], list[list[_Cell]]]:
    """The columns that hold anything, and their cells row by row; for the report fewer (`page`)."""
    rows = [row for _, row in table.iterrows()]
    contestants = table[(table["method"] != "exact") & (table["operator"] != "solver")]
    columns, cells = [], []
    for column in _READABLE:
        texts = [column.cell(row) for row in rows]
        if not any(texts) or (page and not column.page):
            continue
        best = np.zeros(len(rows), bool)
        if column.best:
            smallest = contestants.groupby(KEY)[column.best].transform("min")
            best[contestants.index[(contestants[column.best] == smallest).fillna(False)]] = True
        columns.append(column)
        cells.append([_Cell(text, bool(bold)) for text, bold in zip(texts, best, strict=True)])
    return columns, [list(row) for row in zip(*cells, strict=True)]


def _errors(samples: Samples, kept: np.ndarray) -> dict[str, Any]:
    members, truth = samples.coefficient[kept].astype(np.float64), samples.coefficient_true[kept].astype(np.float64)
    target, space = truth[:, None], samples.spaces[0]
    each = 100 * metrics.relative_l2(members, target, space).mean(axis=1)
    mean = 100 * metrics.relative_l2(members.mean(axis=1), truth, space)
    spectral = metrics.spectral_error(members, target, space).mean(axis=1)
    row = {"l2_sample": float(each.mean()), "l2_sample_se": metrics.standard_error(each)}
    row |= {"l2_mean": float(mean.mean()), "l2_mean_se": metrics.standard_error(mean)}
    row |= {"spectral": float(spectral.mean()), "spectral_se": metrics.standard_error(spectral)}
    if values := metrics.two_values(samples.coefficient_true):
        row["error_rate"] = 100 * float(metrics.error_rate(members, target, values).mean())
    if samples.solution is not None:
        scale = samples.attributes.get("solution_std") or float(samples.solution_true.std(dtype=np.float64))
        if samples.seen is None:
            fit = metrics.misfit(samples.solution[kept], samples.observation[kept], samples.mask[kept], scale)
        else:
            fit = samples.seen.misfit(samples.solution, samples.coefficient)[kept]
        row["misfit"] = float(fit.mean())
    return row


def _calibration(samples: Samples, kept: np.ndarray) -> dict[str, Any]:
    result = calibration(samples.coefficient[kept], samples.coefficient_true[kept])
    if result is None:
        return {}
    return {name: getattr(result, name) for name in ("coverage50", "coverage90", "crps", "spread_skill")}


def _published(row: Mapping[str, Any]) -> dict[str, float | None]:
    """Published figures for this row: only for the benchmark's own problem, and for the learnt operator where one is used."""
    if row["problem"] != row["pde"] or row["operator"] == "solver":
        return {}
    l2, spectral = PUBLISHED.get((row["pde"], row["method"], float(row["percent"])), (None, None))
    return {"l2_paper": l2, "spectral_paper": spectral}


def _present(value: Any) -> Any:
    """None for what is empty in any of the ways in which files and arrays say so."""
    if value is None or value == "" or (isinstance(value, float | np.floating) and not np.isfinite(value)):
        return None
    return value.item() if isinstance(value, np.generic) else value


def _sizes(table: pd.DataFrame) -> list[str]:
    """One sentence per problem and observation: resolution, observations, noise, test fields."""
    keys = ["problem", "observation", "resolution", "observations", "noise", "n_fields"]
    sentences = []
    for row in table[keys].drop_duplicates().to_dict("records"):
        noise = row["noise"]
        level = "unknown noise" if pd.isna(noise) else "no noise" if noise == 0 else f"noise {noise:g} std(u)"
        sentences.append(
            f"{row['problem']}, {row['observation']}: {row['resolution']} x {row['resolution']} nodes, "
            f"{row['observations']} observations, {level}, {row['n_fields']} test fields."
        )
    return sentences


def _css(column: _Column) -> str:
    return ' class="number"' if column.number else ""


def _td(cell: _Cell, column: _Column) -> str:
    text = html.escape(cell.text)
    return f"<td{_css(column)}>" + (f"<strong>{text}</strong>" if cell.best else text) + "</td>"
