"""What came before sampling: losses of the training, the prior against the optimal denoiser, and the choice of weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ddis.evaluation.figures.style import LIMIT, TRUTH, drawing, panels, plain_number, plain_ticks, wide
from ddis.evaluation.text import Table, known, numbers, where


def training_history(histories: Mapping[str, Table]) -> Figure:
    """Loss of training and validation and the learning rate against the step, one column of panels per model.

    histories: model -> columns step, seconds, learning_rate, train_loss, validation_loss (empty where not measured).
    """
    columns = min(3, len(histories))
    rows = -(-len(histories) // columns)
    with drawing():
        figure = Figure(figsize=(3.7 * columns, 3.8 * rows), layout="constrained")
        heights = (3, 1) * rows
        axes = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=heights)
        for index, (model, history) in enumerate(histories.items()):
            row, column = divmod(index, columns)
            _history(axes[2 * row, column], axes[2 * row + 1, column], model, history)
        for index in range(len(histories), rows * columns):
            row, column = divmod(index, columns)
            axes[2 * row, column].remove()
            axes[2 * row + 1, column].remove()
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
    return figure


def prior_quality(quality: Mapping[str, Table], gaussian: bool) -> Figure:
    """Error of the trained denoiser against that of the best linear one, per noise level, and the excess of the first.

    gaussian: whether the coefficient is, so that no denoiser is better than that.

    quality: prior -> columns sigma, error, optimal_error, excess.
    """
    with drawing():
        figure = Figure(figsize=(4.6 * len(quality), 4.6), layout="constrained")
        axes = figure.subplots(2, len(quality), squeeze=False, sharex="col", height_ratios=(2, 1))
        for (top, bottom), (prior, levels) in zip(axes.T, quality.items(), strict=True):
            levels, reference = _sorted(levels, "sigma"), "optimal denoiser" if gaussian else "best linear denoiser"
            sigma = numbers(levels, "sigma")
            top.loglog(sigma, numbers(levels, "optimal_error"), color=TRUTH, lw=1.6, label=reference)
            top.loglog(sigma, numbers(levels, "error"), color="#0072B2", marker="o", ms=3.5, lw=1.3, label="trained")
            bottom.semilogx(sigma, numbers(levels, "excess"), color="#0072B2", marker="o", ms=3.5, lw=1.3)
            bottom.axhline(0, color=TRUTH, lw=1)
            plain_ticks(top)
            plain_ticks(bottom, "x")
            top.set(title=prior, ylabel="denoising error")
            top.legend(fontsize=8)
            bottom.set(xlabel="noise level σ (normalised fields, std 0.5)", ylabel="excess")
        figure.align_ylabels()
    return figure


def tuning(curves: Mapping[str, Table], chosen: Mapping[str, float]) -> Figure:
    """Validation error against the guidance weight, one panel per label, the chosen weight marked.

    curves: label -> columns weight, l2_validation, l2_validation_se (percent; empty where a field diverged).
    chosen: label -> weight.
    """
    with drawing():
        figure, axes = panels(len(curves))
        for ax, (label, curve) in zip(axes, curves.items(), strict=False):
            curve = _sorted(curve, "weight")
            diverged = numbers(where(curve, l2_validation=None), "weight")
            weights, errors, bars = (
                numbers(known(curve, "l2_validation"), name) for name in ("weight", "l2_validation", "l2_validation_se")
            )
            style: dict[str, Any] = {"color": "#0072B2", "marker": "o", "ms": 4, "lw": 1.3, "capsize": 3}
            ax.errorbar(weights, errors, yerr=bars, **style)
            weight = chosen[label]
            ax.axvline(weight, color="#D55E00", ls="--", lw=1.2, label=f"chosen: {weight:g}")
            if len(diverged):
                top = [0.97] * len(diverged)
                ax.plot(diverged, top, "x", color="k", ms=7, transform=ax.get_xaxis_transform(), label="diverged")
            ax.set(xscale="log", yscale="log" if wide(errors) else "linear", title=label)
            ax.set(xlabel="guidance weight", ylabel="relative l² error, validation, %")
            plain_ticks(ax)
            ax.legend(fontsize=8, frameon=True, framealpha=0.9)
    return figure


def _sorted(table: Table, name: str) -> list[Mapping[str, Any]]:
    return sorted(table, key=lambda row: float(row[name]))


def _history(top: Axes, bottom: Axes, model: str, history: Table) -> None:
    for name, colour, label in (("train_loss", "#56B4E9", "training"), ("validation_loss", "#D55E00", "validation")):
        measured = known(history, name)
        top.semilogy(numbers(measured, "step"), numbers(measured, name), color=colour, lw=1.3, label=label)
    bottom.plot(numbers(history, "step"), numbers(history, "learning_rate"), color=LIMIT, lw=1.2)
    top.set(title=f"{model} ({np.nanmax(numbers(history, 'seconds')):.0f} s)", ylabel="loss")
    top.tick_params(labelbottom=False)
    bottom.sharex(top)
    bottom.set(xlabel="step", ylabel="learning\nrate")
    plain_ticks(top, "y")
    bottom.yaxis.set_major_formatter(plain_number)
