"""How wrong samples are: their spectra, and their error against the percent of pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from numpy.typing import NDArray

from ddis.data.store import Samples
from ddis.data.subsets import percent_name
from ddis.evaluation import metrics
from ddis.evaluation.figures.style import TRUTH, dashes, drawing, plain_ticks, run_label, setting, wide
from ddis.evaluation.text import Table, grouped, known, numbers, where


def spectra(runs: Sequence[Samples], colours: Mapping[str, str]) -> Figure:
    """Ring-averaged power of the truth and of every run's samples (mean over fields and samples), and their ratio, by channel."""
    space = runs[0].spaces[0]
    shown = [run for run in runs if not run.failed.all()]
    powers = [metrics.ring_power(run.coefficient[~run.failed], space).mean(axis=(0, 1)) for run in shown]
    truth = metrics.ring_power(runs[0].coefficient_true, space).mean(axis=0)
    with drawing():
        figure = Figure(figsize=(4.4 + 3.8 * space.channels, 5.6), layout="constrained")
        axes = figure.subplots(2, space.channels, sharex=True, squeeze=False, height_ratios=(2, 1))
        for channel, (top, bottom) in enumerate(axes.T):
            own = [power.reshape(space.channels, -1)[channel] for power in (truth, *powers)]
            _spectrum(top, bottom, metrics.ring_wavenumbers(space), own, shown, colours)
            bottom.set(xlabel="wavenumber |k|, cycles per node")
            if space.channels > 1:
                top.set_title(f"channel {channel + 1}")
        for ax in axes[0]:
            plain_ticks(ax, "y")
        axes[0, 0].set_ylabel("power  |FFT a|², ring average")
        axes[1, 0].set_ylabel("power / truth")
        figure.suptitle(f"Spectra of samples, {setting(runs[0])}", fontsize=9)
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
        figure.align_ylabels()
    return figure


def _spectrum(
    top: Axes,
    bottom: Axes,
    wavenumbers: NDArray[Any],
    powers: Sequence[NDArray[Any]],
    runs: Sequence[Samples],
    colours: Mapping[str, str],
) -> None:
    """powers: of the truth, and of every run."""
    truth = powers[0]
    top.loglog(wavenumbers, truth, color=TRUTH, lw=2.2, label="truth")
    bottom.axhline(1, color=TRUTH, lw=1)
    for samples, power, dash in zip(runs, powers[1:], dashes(runs), strict=True):
        style: dict[str, Any] = {"color": colours[samples.attributes["run"]], "ls": dash, "lw": 1.4}
        top.plot(wavenumbers, power, label=run_label(samples), **style)
        bottom.semilogx(wavenumbers, power / truth, **style)
    if wide(np.concatenate([line.get_ydata() for line in bottom.lines])):
        bottom.set_yscale("log")
    # What is further off, such as the flat mean of the prior, would hide how the others differ.
    top.set_ylim(max(truth.min() / 20, top.get_ylim()[0]), min(20 * truth.max(), top.get_ylim()[1]))
    bottom.set_ylim(max(0.05, bottom.get_ylim()[0]), min(20, bottom.get_ylim()[1]))
    plain_ticks(bottom)


def error_against_fraction(table: Table, problem: str, observation: str, colours: Mapping[str, str]) -> Figure:
    """Relative l2 of single samples and of the mean of K against the percent of pairs, with standard errors over fields.

    table: the table of errors. Runs that exist at one percent only because they use no pairs (`exact`, the solver as operator)
    are horizontal lines; the limit, the error of the closed-form mean, is one beside the means.
    """
    rows = where(table, problem=problem, observation=observation)
    with drawing():
        figure = Figure(figsize=(8.6, 4.0), layout="constrained")
        axes = figure.subplots(1, 2, sharey=True)
        for ax, name, title in zip(axes, ("l2_sample", "l2_mean"), ("single samples", "mean of K samples"), strict=True):
            _error_curves(ax, rows, name, colours)
            ax.set(title=title, xlabel="share of the training pairs, %")
        if limited := known(rows, "l2_limit"):
            axes[1].axhline(limited[0]["l2_limit"], color=TRUTH, ls=":", lw=1.2, label="limit (closed-form mean)")
        axes[0].set_ylabel("relative l² error of a, %")
        handles = {label: h for ax in axes for h, label in zip(*ax.get_legend_handles_labels(), strict=True)}
        figure.legend(handles.values(), handles.keys(), loc="outside right center", fontsize=8)
        count = f"; bars: standard error over {max(row['n_fields'] for row in rows)} fields" if rows else ""
        figure.suptitle(f"{problem}, observation '{observation}'{count}", fontsize=9)
    return figure


def _error_curves(ax: Axes, rows: Table, name: str, colours: Mapping[str, str]) -> None:
    for (run,), group in grouped(known(rows, name), "run").items():
        x, y, bars = numbers(group, "percent"), numbers(group, name), np.nan_to_num(numbers(group, f"{name}_se"))
        colour = colours[run]
        label = f"{run}, K = {group[0]['n_samples']}"
        if not known(group, "pairs"):
            ax.axhline(y[0], color=colour, ls="--", lw=1.4, label=label)
            ax.axhspan(y[0] - bars[0], y[0] + bars[0], color=colour, alpha=0.15, lw=0)
        else:
            ax.errorbar(x, y, yerr=bars, color=colour, marker="o", ms=4, lw=1.4, capsize=3, label=label)
    ax.set_xscale("log")
    if rows:
        percents = sorted({row["percent"] for row in rows})
        ax.set_xticks(percents, [percent_name(percent) for percent in percents])
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xlim(percents[0] / 1.4, percents[-1] * 1.4)
    if wide(numbers(rows, name)):
        ax.set_yscale("log")
        plain_ticks(ax, "y")
    else:
        ax.set_ylim(bottom=0)
