"""The table of errors: one row per problem, observation, run and percent of pairs, every column a plain number or a name.

Whatever does not apply is an empty cell. `ddis.evaluation.readable` shows the columns that are read most.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ddis.data.subsets import percent_name
from ddis.evaluation import modes
from ddis.evaluation.metrics import standard_error
from ddis.evaluation.published import PUBLISHED
from ddis.evaluation.scores import Scores
from ddis.evaluation.text import read_table
from ddis.text import csv_text

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
    "solver_calls": "Float64",
    **dict.fromkeys(modes.COLUMNS, "Float64"),
}
"""Columns of the table in their order, with their pandas types."""

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
