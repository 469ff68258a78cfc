"""The table of errors: one row per problem, observation, run and percent of pairs, every column a plain number or a name.

Whatever does not apply is an empty cell. `ddis.evaluation.readable` shows the columns that are read most.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ddis.data.subsets import percent_name
from ddis.evaluation import modes
from ddis.evaluation.metrics import standard_error
from ddis.evaluation.published import PUBLISHED
from ddis.evaluation.scores import Scores
from ddis.evaluation.text import Table, read_table
from ddis.text import csv_text

COLUMNS: dict[str, type] = {
    "problem": str,
    "pde": str,
    "run": str,
    "method": str,
    "operator": str,
    "percent": float,
    "pairs": int,
    "observation": str,
    "observations": int,
    "noise": float,
    "resolution": int,
    "n_fields": int,
    "n_samples": int,
    "n_failed": int,
    "l2_sample": float,
    "l2_sample_se": float,
    "l2_mean": float,
    "l2_mean_se": float,
    "l2_limit": float,
    "spectral": float,
    "spectral_se": float,
    "error_rate": float,
    "coverage50": float,
    "coverage90": float,
    "crps": float,
    "spread_skill": float,
    "misfit": float,
    "prior_evaluations": float,
    "operator_evaluations": float,
    "seconds_per_field": float,
    "seconds_per_sample": float,
    "peak_memory_mb": float,
    "device": str,
    "l2_paper": float,
    "spectral_paper": float,
    "solver_calls": float,
    **dict.fromkeys(modes.COLUMNS, float),
}
"""Columns of the table in their order, with their types; any may be empty."""

KEY = ["problem", "observation", "percent"]
"""Rows that agree in these columns compete with each other."""

_FROM_ATTRIBUTES = (
    *("problem", "pde", "run", "method", "operator", "percent", "pairs", "observation", "noise"),
    *("prior_evaluations", "operator_evaluations", "seconds_per_field", "seconds_per_sample", "peak_memory_mb", "device"),
    "solver_calls",
)


def error_row(scores: Scores, limits: np.ndarray | None) -> dict[str, Any]:
    """The row of one file of samples; None in what does not apply.

    limits: errors [n] of the closed-form mean on the same fields, in percent, None where unknown. Fields that failed count in
    `n_failed` and are left out of every figure. l2* and error_rate are in percent, coverage in [0, 1], crps in units of the
    coefficient, misfit and `noise` in units of the standard deviation of the training solutions.
    """
    kept, (count, size) = scores.finite, scores.l2_sample.shape
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row |= {name: scores.attributes.get(name) for name in _FROM_ATTRIBUTES}
    row |= {"observations": scores.observations, "resolution": scores.resolution, "n_fields": count, "n_samples": size}
    row["n_failed"] = int(count - kept.sum())
    if kept.any():
        for name, values in (
            ("l2_sample", scores.l2_sample[kept].mean(axis=1)),
            ("l2_mean", scores.l2_mean[kept, -1]),
            ("spectral", scores.spectral[kept].mean(axis=1)),
        ):
            row |= {name: float(values.mean()), f"{name}_se": standard_error(values)}
        for name, found in (("l2_limit", limits), ("error_rate", scores.error_rate), ("misfit", scores.misfit)):
            row[name] = None if found is None else float(found[kept].mean())
        if scores.same_sign is not None:
            row |= modes.mode_columns(scores.same_sign[kept])
    if scores.calibration is not None:
        row |= {name: getattr(scores.calibration, name) for name in ("coverage50", "coverage90", "crps", "spread_skill")}
    return row | _published(row)


def error_table(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of `error_row` with values of the types of `COLUMNS`, by problem, observation and percent, then as given."""
    table = [
        {name: None if (cell := _present(row[name])) is None else kind(cell) for name, kind in COLUMNS.items()} for row in rows
    ]
    return sorted(table, key=lambda row: [row[name] for name in KEY])


def to_csv(table: Table) -> str:
    """All columns, numbers with every digit that tells them apart, so that the same numbers always give the same text."""
    return csv_text(({**row, "percent": percent_name(row["percent"])} for row in table), list(COLUMNS))


def from_csv(path: Path | str) -> list[dict[str, Any]]:
    """The rows of a table written by `to_csv`. Raises InputError."""
    return read_table(path, COLUMNS)


def _published(row: Mapping[str, Any]) -> dict[str, float | None]:
    """Published figures for this row: only for the benchmark's own problem, and for an FNO where an operator is used."""
    if row["problem"] != row["pde"] or _present(row["operator"]) not in (None, "fno"):
        return {}
    l2, spectral = PUBLISHED.get((row["pde"], row["method"], float(row["percent"])), (None, None))
    return {"l2_paper": l2, "spectral_paper": spectral}


def _present(value: Any) -> Any:
    """None for what is empty in any of the ways in which files and arrays say so."""
    if value is None or value == "" or (isinstance(value, float | np.floating) and not np.isfinite(value)):
        return None
    return value.item() if isinstance(value, np.generic) else value
