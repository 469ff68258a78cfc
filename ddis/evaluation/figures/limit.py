"""The distance to the limit: ratios to exact samples, and what prior, operator and sampler contribute."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ddis.evaluation.bootstrap import LEVEL
from ddis.evaluation.figures.style import LIMIT, TRUTH, drawing, plain_ticks
from ddis.evaluation.limit import JOINT, NOT_LEARNT, TOTAL
from ddis.evaluation.text import Table, numbers, where

_COLOURS = {
    "limit": LIMIT,
    "prior": "#0072B2",
    "operator": "#009E73",
    "sampler": "#D55E00",
    JOINT: "#CC79A7",
    NOT_LEARNT: "#999933",
}
_SHOWN = 3.0
"""Bars end at so many times the median total, so that one that diverged does not hide the others."""


def distance(ratios: Table, splits: Table, problem: str, observation: str, colours: Mapping[str, str]) -> Figure:
    """Left: l2 of the K-sample mean and E_s as ratios to exact samples. Right: the squared error, split into its parts.

    ratios, splits: the tables limit.csv and split.csv, percent as text. Squared errors add, so the right axis is linear in
    them and labelled with their roots, which are relative l2 errors. Negative parts stand left of zero; the dot is the total.
    """
    ratios, splits = (where(table, problem=problem, observation=observation) for table in (ratios, splits))
    with drawing():
        figure = Figure(figsize=(10.6, 1.9 + 0.26 * max(2, len(ratios))), layout="constrained")
        axes = figure.subplots(1, 3, sharey=True, width_ratios=(1.2, 1, 2.4))
        names = ("l2_mean_ratio", "spectral_ratio")
        for ax, name, title in zip(axes, names, ("l2 of the mean / exact", "E_s / exact"), strict=False):
            _ratios(ax, ratios, name, colours)
            ax.set_title(title)
        _bars(axes[2], ratios, splits)
        axes[2].set_title("l2 of the mean, in squares: what each part adds")
        labels = [f"{row['run']}, {row['percent']} %, K = {row['n_samples']}" for row in ratios]
        axes[0].set_yticks(range(len(ratios)), labels)
        axes[0].set_ylim(max(2, len(ratios)) - 0.5, -0.5)
        handles = [_patch(part) for part in dict.fromkeys(row["part"] for row in splits) if part != TOTAL]
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8)
        fields = f", {max(row['n_fields'] for row in ratios)} test fields" if ratios else ""
        figure.suptitle(
            f"Distance to exact samples at the same K, {problem}, '{observation}'{fields}; bars: {100 * LEVEL:g} % intervals",
            fontsize=9,
        )
    return figure


def _ratios(ax: Axes, rows: Table, name: str, colours: Mapping[str, str]) -> None:
    ax.axvline(1, color=TRUTH, lw=1)
    for place, row in enumerate(rows):
        colour = colours[row["run"]]
        if row[f"{name}_low"] is not None:
            ax.plot([row[f"{name}_low"], row[f"{name}_high"]], [place, place], color=colour, lw=1.6)
        if row[name] is not None:
            ax.plot(row[name], place, "o", color=colour, ms=4.5)
    if rows:
        ax.set_xscale("log")
        largest = np.nanmax([numbers(rows, name), numbers(rows, f"{name}_high")])
        ax.set_xlim(min(0.9, 0.9 * np.nanmin(numbers(rows, name))), max(2.0, 1.1 * largest))
        plain_ticks(ax, "x")


def _bars(ax: Axes, rows: Table, splits: Table) -> None:
    """Parts stacked from zero to either side, the total as a dot with its interval, and its root in numbers at the edge."""
    totals = numbers(where(splits, part=TOTAL), "l2_squared")
    right = min(1.15 * totals.max(), _SHOWN * float(np.median(totals))) if len(totals) else 1.0
    left = 0.0
    for place, case in enumerate(rows):
        parts = where(splits, run=case["run"], percent=case["percent"])
        ends = {True: 0.0, False: 0.0}
        for row in parts[:-1]:
            width, positive = row["l2_squared"], bool(row["l2_squared"] > 0)
            ax.barh(place, width, left=ends[positive], height=0.72, **_face(row["part"]))
            ends[positive] += width
        left = min(left, ends[False])
        if parts:
            _total(ax, place, parts[-1], right)
    ax.axvline(0, color=TRUTH, lw=0.8)
    ax.set_xlim(1.05 * left, right)
    ticks = _ticks(float(np.sqrt(right)))
    ax.set_xticks([tick**2 for tick in ticks], [f"{tick:g} %" for tick in ticks])


def _total(ax: Axes, place: int, row: Mapping[str, Any], right: float) -> None:
    value = row["l2_squared"]
    if value <= right:
        ax.plot(value, place, "o", color=TRUTH, ms=3.5)
    if value <= right and row["l2_squared_low"] is not None:
        ax.plot([row["l2_squared_low"], row["l2_squared_high"]], [place, place], color=TRUTH, lw=1)
    text = f"{np.sqrt(value):.1f} %"
    edge = ax.get_yaxis_transform()
    ax.text(1.01, place, text if value <= right else f"{text}, cut", transform=edge, va="center", fontsize=8)


def _ticks(top: float) -> list[float]:
    """Round errors in percent up to `top` whose squares do not crowd."""
    step = 10 ** np.floor(np.log10(top / 2)) if top > 0 else 1.0
    ticks = [0.0]
    for tick in step * np.arange(1, 40):
        if ticks[-1] ** 2 + 0.1 * top**2 < tick**2 <= top**2:
            ticks.append(float(tick))
    return ticks


def _face(part: str) -> dict[str, Any]:
    """Colour of a part; parts that could not be told apart are hatched in the colour of the last of them."""
    last = part.rsplit(" and ", 1)[-1]
    merged = part not in _COLOURS
    return {"facecolor": _COLOURS[last if merged else part], "edgecolor": "white", "hatch": "////" if merged else None, "lw": 0.3}


def _patch(part: str) -> Patch:
    return Patch(label=part, **_face(part))
