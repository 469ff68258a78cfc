"""The table of calibration: for every run with at least 4 samples, whether the truth could be one of its samples.

One row per problem, observation, run and percent; what is tested, and how, is in `ddis.evaluation.sbc`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ddis.data.subsets import percent_name
from ddis.evaluation.bootstrap import LEVEL as INTERVAL
from ddis.evaluation.sbc import ENOUGH, FEW, QUANTITIES, Verdict
from ddis.evaluation.scores import Scores
from ddis.evaluation.uniformity import DRAWS, LEVEL
from ddis.text import csv_text, pipe_table, with_interval

CREDIBILITIES = (50, 90)
P_VALUES = {f"p_{name.replace(' ', '')}": name for name in QUANTITIES}
COLUMNS = ["problem", "observation", "run", "percent", "n_fields", "n_samples", "verdict", "p_value", "p_fields", *P_VALUES]
COLUMNS += [column for c in CREDIBILITIES for column in (f"tarp{c}", f"tarp{c}_low", f"tarp{c}_high")] + ["power"]
_HEAD = [
    "problem",
    "observation",
    "run",
    "% pairs",
    "fields",
    "K",
    "verdict",
    "p",
    "p without misfit",
    "worst",
    "TARP 50 %",
    "TARP 90 %",
    "power",
]


def calibration_rows(scores: Sequence[Scores]) -> list[dict[str, Any]]:
    """A row for each run that has a verdict."""
    return [case(run) | verdict_cells(run.verdict) for run in scores if run.verdict is not None]


def case(run: Scores) -> dict[str, Any]:
    names = {name: run.attributes[name] for name in ("problem", "observation", "run")}
    return {**names, "percent": percent_name(run.attributes["percent"])}


def verdict_cells(found: Verdict) -> dict[str, Any]:
    """All columns but those that name the run; None for a quantity that was not tested."""
    cells: dict[str, Any] = {"n_fields": found.fields, "n_samples": found.size, "verdict": found.word}
    cells |= {"p_value": found.test.p_value, "p_fields": found.p_fields, "power": found.power}
    cells |= {column: found.test.p_values.get(name) for column, name in P_VALUES.items()}
    for c in CREDIBILITIES:
        cells |= dict(zip((f"tarp{c}", f"tarp{c}_low", f"tarp{c}_high"), found.coverage(c / 100), strict=True))
    return cells


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    return csv_text(rows, COLUMNS)


def to_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """For reading, with what the columns are."""
    if not rows:
        return "No run of this study has 4 samples of 2 fields: its calibration is not tested.\n"
    return "\n\n".join([caption(), pipe_table(_HEAD, map(_cells, rows)), ""])


def caption() -> str:
    """How the table is read."""
    return (
        f"Whether the truth could be one of the samples. p: simulation-based calibration, of ranks of {', '.join(QUANTITIES)} "
        f"together, by {DRAWS} permutations; up to {LEVEL:g} it is a fault, as {100 * LEVEL:g} % of exact posteriors show. "
        "worst: the quantity whose ranks are least like uniform ones. TARP: share of the fields in credible regions of 50 and 90 "
        f"%, in brackets its {100 * INTERVAL:g} % interval. power: the probability with which samples of half the right spread "
        f"would be found out; below {ENOUGH:g}, where nothing was found, the verdict is: {FEW}."
    )


def _cells(row: Mapping[str, Any]) -> list[str]:
    names = ("problem", "observation", "run", "percent", "n_fields", "n_samples", "verdict")
    tested = {name: row[column] for column, name in P_VALUES.items() if row[column] is not None}
    shares = [with_interval(row, f"tarp{c}", f"tarp{c}_low", f"tarp{c}_high", digits=2) for c in CREDIBILITIES]
    numbers = (
        f"{row['p_value']:.2g}",
        f"{row['p_fields']:.2g}",
        min(tested, key=lambda name: tested[name]),
        *shares,
        f"{row['power']:.2f}",
    )
    return [*(str(row[name]) for name in names), *numbers]
