"""Whether the samples' spread tells their error: coverage, spread/skill and CRPS beside each other, and rank histograms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from ddis.data.store import Samples
from ddis.evaluation import calibration
from ddis.evaluation.bootstrap import LEVEL, Estimate, estimate
from ddis.evaluation.figures.style import TRUTH, drawing, plain_ticks, run_label, setting

_COLUMNS = (
    ("coverage of 50 %", 0.5, lambda c: estimate(_itself, c.covered50)),
    ("coverage of 90 %", 0.9, lambda c: estimate(_itself, c.covered90)),
    ("spread / skill", 1.0, lambda c: estimate(lambda v, e: np.sqrt(v / e), c.variance, c.squared_error)),
    ("CRPS of a", None, lambda c: estimate(_itself, c.scores)),
)


Judged = Sequence[tuple[Samples, calibration.Calibration]]
"""Runs with their calibration."""


def judge(runs: Sequence[Samples]) -> Judged:
    """The runs that have a calibration, with it; failed fields are left out."""
    pairs = [(samples, *_kept(samples)) for samples in runs]
    results = [(samples, calibration.calibration(*kept) if len(kept[0]) else None) for samples, *kept in pairs]
    return [(samples, result) for samples, result in results if result is not None]


def summary(judged: Judged, colours: Mapping[str, str]) -> Figure:
    """Coverage of 50 and 90 % intervals, spread/skill and CRPS with bootstrap intervals, one line per run with K of 4 or more."""
    with drawing():
        figure = Figure(figsize=(9.6, 1.5 + 0.24 * max(2, len(judged))), layout="constrained")
        axes = figure.subplots(1, len(_COLUMNS), sharey=True)
        for ax, (title, target, value) in zip(axes, _COLUMNS, strict=True):
            if target is not None:
                ax.axvline(target, color=TRUTH, lw=1)
            for row, (samples, result) in enumerate(judged):
                _dot(ax, row, value(result), colours[samples.attributes["run"]])
            ax.set(title=title, ylim=(max(2, len(judged)) - 0.5, -0.5))
            ax.locator_params(axis="x", nbins=5)
        _log_if_wide(axes[-1])
        labels = [f"{run_label(samples)}, K = {samples.coefficient.shape[1]}" for samples, _ in judged]
        axes[0].set_yticks(range(len(judged)), labels)
        title = f"Calibration per node, {{}}; bars: {100 * LEVEL:g} % intervals; black: an exact posterior"
        figure.suptitle(_title(judged, title), fontsize=9)
    return figure


def rank_histograms(judged: Judged, colours: Mapping[str, str]) -> Figure:
    """How often the truth has each rank among the samples, relative to uniform, one panel per run with K of 4 or more.

    Grey: where 95 % of calibrated ensembles would be, rank by rank, given that nodes of one field are correlated (`rank_band`).
    A hill says too wide, a bowl too narrow, a slope biased.
    """
    columns = min(6, max(1, len(judged)))
    rows = max(1, -(-len(judged) // columns))
    with drawing():
        figure = Figure(figsize=(max(6.0, 2.0 * columns), 0.85 + 1.75 * rows), layout="constrained")
        axes = list(figure.subplots(rows, columns, squeeze=False).ravel())
        for ax, (samples, result) in zip(axes, judged, strict=False):
            _histogram(ax, samples, result, colours[samples.attributes["run"]])
        for ax in axes[len(judged) :]:
            ax.remove()
        if judged:
            figure.supxlabel("rank of the true value among the samples, 0 to K", fontsize=9)
            figure.supylabel("frequency / uniform", fontsize=9)
        title = f"Rank histograms, {{}}\ngrey: {100 * LEVEL:g} % of calibrated ensembles, rank by rank"
        figure.suptitle(_title(judged, title), fontsize=9)
    return figure


def _kept(samples: Samples) -> tuple[Any, Any]:
    kept = ~samples.failed
    return samples.coefficient[kept], samples.coefficient_true[kept]


def _title(judged: Judged, title: str) -> str:
    return (
        title.format(setting(judged[0][0]))
        if judged
        else f"No run has {calibration.MIN_SAMPLES} samples per field: no calibration"
    )


def _dot(ax: Axes, row: int, found: Estimate, colour: str) -> None:
    value, low, high = found
    ax.plot([value if end is None else end for end in (low, high)], [row, row], color=colour, lw=1.6)
    ax.plot(value, row, "o", color=colour, ms=4.5)


def _log_if_wide(ax: Axes) -> None:
    """A logarithmic axis where the largest value would hide the others."""
    values = np.concatenate([line.get_xdata() for line in ax.lines]) if ax.lines else np.ones(1)
    if values.min() > 0 and values.max() > 8 * values.min():
        ax.set_xscale("log")
        plain_ticks(ax, "x")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 3)))


def _histogram(ax: Axes, samples: Samples, result: calibration.Calibration, colour: str) -> None:
    counts = result.ranks.sum(axis=0)
    share, places = counts / counts.mean(), np.arange(len(counts))
    edges = np.arange(len(counts) + 1) - 0.5
    low, high = calibration.rank_band(*_kept(samples))
    ax.bar(places, share, width=0.86, color=colour, alpha=0.75)
    ax.stairs(high, edges, baseline=low, fill=True, color="0.35", alpha=0.35, lw=0, zorder=2)
    ax.axhline(1, color=TRUTH, lw=0.8)
    ax.set(xlim=(edges[0], edges[-1]), xticks=[0, len(counts) - 1], ylim=(0, max(2.0, 1.08 * share.max())))
    ax.set_title(run_label(samples))
    ax.grid(visible=False, axis="x")


def _itself(mean: Any) -> Any:
    return mean
