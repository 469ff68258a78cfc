"""A figure of merit against a bound: whether a claim holds, does not, or is open, and how many test fields would decide it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ddis.evaluation.bootstrap import Estimate
from ddis.evaluation.text import Table, known

Found = Estimate | tuple[None, None, None]


@dataclass(frozen=True)
class Figure:
    """What a study found: a figure and its interval, and of how many fields; None: the study does not give it."""

    found: Found = (None, None, None)
    fields: int | None = None


UNKNOWN = Figure()


def words(row: Mapping[str, Any]) -> str:
    """The verdict; of an open one how many fields would decide it."""
    if row["fields_to_decide"] is None:
        return str(row["verdict"])
    return f"{row['verdict']}: about {row['fields_to_decide']:,.0f} fields would decide it, these are {row['n_fields']:.0f}"


def verdict(found: Found, at_least: float = -np.inf, at_most: float = np.inf) -> str:
    """Whether a figure is inside the bounds: yes or no if its whole interval is, inconclusive otherwise."""
    value, low, high = found
    if value is None:
        return "inconclusive"
    low, high = (value if end is None else end for end in (low, high))
    if at_least <= low and high <= at_most:
        return "yes"
    return "no" if high < at_least or low > at_most else "inconclusive"


def fields_to_decide(found: Found, fields: int, at_least: float = -np.inf, at_most: float = np.inf) -> int | None:
    """Fields with which the interval would lie on one side of the bounds, if the figure stayed; None: no number would do."""
    value, low, high = found
    if value is None or low is None or high is None or not all(map(math.isfinite, (value, low, high))):
        return None
    inside = at_least <= value <= at_most
    widths = [(value - low, value - at_least), (high - value, at_most - value)]
    if not inside:
        widths = [(high - value, at_least - value)] if value < at_least else [(value - low, value - at_most)]
    if any(distance == 0 for _, distance in widths):
        return None
    return math.ceil(fields * max(width / distance for width, distance in widths) ** 2)


def claim_row(claim: str, formula: str, figure: Figure, published: float | None = None, **bounds: float) -> dict[str, Any]:
    value, low, high = figure.found
    figures = {"published": published, "ours": value, "low": low, "high": high}
    row = {"claim": claim, "formula": formula, **figures, "verdict": verdict(figure.found, **bounds), "n_fields": figure.fields}
    is_open = row["verdict"] == "inconclusive" and figure.fields is not None
    return row | {"fields_to_decide": fields_to_decide(figure.found, figure.fields or 0, **bounds) if is_open else None}


def not_asked(rows: Table) -> list[str]:
    """A sentence on the claims that the study has no figure for, if there are any."""
    missing = len(rows) - len(known(rows, "ours"))
    are = "is" if missing == 1 else "are"
    about = "about runs, problems or shares of pairs that this study lacks."
    return [f"{missing} of {len(rows)} claims {are} {about}"] if missing else []
