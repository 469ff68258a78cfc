"""Figures of a study, as matplotlib figures that belong to nobody: no pyplot, no global state.

Coefficient and solution are dimensionless, as the problems are. A field [i, j] is x = i / (S - 1), y = j / (S - 1): pictures
show its transpose with the origin at the lower left. A run keeps its colour in all figures (`run_colours`). Labels such as
`ddis-gn, 1 %` name a run and its percent of pairs (`run_label`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from itertools import cycle
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import NDArray

from ddis.data.store import Samples
from ddis.data.subsets import percent_name
from ddis.evaluation import metrics

TRUTH = "black"
LIMIT = "#6b6b6b"
_KNOWN = {
    "ddis": "#0072B2",
    "ddis-gn": "#009E73",
    "fundps": "#D55E00",
    "diffusionpde": "#CC79A7",
    "joint-daps": "#E69F00",
    "ddis-dps": "#56B4E9",
    "exact": LIMIT,
}
_OTHERS = ("#882255", "#332288", "#999933", "#44AA99", "#AA4466", "#661100")
_DASHES = ("-", "--", ":", "-.")
_STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "figure.facecolor": "white",
}


def run_colours(runs: Sequence[str]) -> dict[str, str]:
    """A colour per run name, told apart by colour-blind readers: the methods' own first, then others in the given order."""
    others = cycle(_OTHERS)
    return {run: _KNOWN[run] if run in _KNOWN else next(others) for run in dict.fromkeys(runs)}


def run_label(samples: Samples) -> str:
    """`run, percent %`, and the run alone where it uses no pairs of its own (`exact`, the solver as operator)."""
    run, percent = samples.attributes["run"], percent_name(samples.attributes["percent"])
    alone = samples.attributes["method"] == "exact" or samples.attributes.get("operator") == "solver"
    return str(run) if alone else f"{run}, {percent} %"


def to_png(figure: Figure, dpi: int = 150) -> bytes:
    """The figure as PNG; the same figure always gives the same bytes."""
    buffer = BytesIO()
    with rc_context(_STYLE):
        figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def gallery(runs: Sequence[Samples], fields: Sequence[int], show: Literal["mean", "sample"] = "mean") -> Figure:
    """Truth, observation, and per run an estimate with its error, for the given test fields.

    show: the mean of the K samples, or the first sample. Colours are shared by truth and estimates, and by all errors, of one
    field. Raises ValueError when the runs do not belong to the same test fields.
    """
    first = runs[0]
    for samples in runs[1:]:
        if not np.array_equal(samples.coefficient_true, first.coefficient_true):
            raise ValueError(f"gallery: run {run_label(samples)!r} has other test fields than {run_label(first)!r}")
    with rc_context(_STYLE | {"axes.grid": False}):
        figure = Figure(figsize=(1.5 * (len(runs) + 1) + 1.6, 3.9 * len(fields)), layout="constrained")
        parts = np.atleast_1d(np.asarray(figure.subfigures(len(fields), 1)))
        for part, field in zip(parts, fields, strict=True):
            _gallery_field(part, runs, field, show)
    return figure


def spectra(runs: Sequence[Samples], colours: Mapping[str, str]) -> Figure:
    """Ring-averaged power of the truth and of every run's samples (mean over fields and samples), and their ratio."""
    with rc_context(_STYLE):
        figure = Figure(figsize=(6.4, 5.6), layout="constrained")
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
        wavenumbers = metrics.ring_wavenumbers(runs[0].coefficient.shape[-1])
        truth = metrics.ring_power(runs[0].coefficient_true).mean(axis=0)
        top.loglog(wavenumbers, truth, color=TRUTH, lw=2.2, label="truth")
        bottom.axhline(1, color=TRUTH, lw=1)
        for samples, dash in zip(runs, _dashes(runs), strict=True):
            finite = samples.coefficient[~metrics.failed_fields(samples.coefficient)]
            if not len(finite):
                continue
            power = metrics.ring_power(finite).mean(axis=(0, 1))
            style = {"color": colours[samples.attributes["run"]], "ls": dash, "lw": 1.4}
            top.plot(wavenumbers, power, label=run_label(samples), **style)
            bottom.semilogx(wavenumbers, power / truth, **style)
        top.set(ylabel="power  $|\\mathrm{FFT}\\,a|^2$, ring average", title=f"Spectra of samples, {_setting(runs[0])}")
        top.legend(fontsize=8)
        bottom.set(xlabel="wavenumber $|k|$, cycles per pixel", ylabel="power / truth")
        _plain_ticks(bottom, "x")
        figure.align_ylabels()
    return figure


def error_against_fraction(table: pd.DataFrame, problem: str, observation: str, colours: Mapping[str, str]) -> Figure:
    """Relative l2 of single samples and of the mean of K against the percent of pairs, with standard errors over fields.

    table: the table of errors. Runs that exist at one percent only because they use no pairs (`exact`, the solver as operator)
    are horizontal lines; the limit, the error of the closed-form mean, is one beside the means.
    """
    rows = table[(table["problem"] == problem) & (table["observation"] == observation)]
    with rc_context(_STYLE):
        figure = Figure(figsize=(8.6, 4.0), layout="constrained")
        axes = figure.subplots(1, 2, sharey=True)
        for ax, name, title in zip(axes, ("l2_sample", "l2_mean"), ("single samples", "mean of K samples"), strict=True):
            _error_curves(ax, rows, name, colours)
            ax.set(title=title, xlabel="share of the training pairs, %")
        limits = rows["l2_limit"].dropna()
        if len(limits):
            axes[1].axhline(limits.iloc[0], color=TRUTH, ls=":", lw=1.2, label="limit (closed-form mean)")
        axes[0].set_ylabel("relative $l^2$ error of $a$, %")
        handles = {label: h for ax in axes for h, label in zip(*ax.get_legend_handles_labels(), strict=True)}
        figure.legend(handles.values(), handles.keys(), loc="outside right center", fontsize=8)
        count = "" if rows.empty else f"; bars: standard error over {rows['n_fields'].max()} fields"
        figure.suptitle(f"{problem}, observation '{observation}'{count}", fontsize=9)
    return figure


def calibration(runs: Sequence[Samples], colours: Mapping[str, str]) -> Figure:
    """Observed against nominal coverage, and the rank of the truth among the samples, for runs with K of 4 or more."""
    levels = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    with rc_context(_STYLE):
        figure = Figure(figsize=(9.2, 4.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.plot([0, 1], [0, 1], color=TRUTH, lw=1, label="perfectly calibrated")
        right.axhline(1, color=TRUTH, lw=1)
        for samples, dash in zip(runs, _dashes(runs), strict=True):
            kept = ~metrics.failed_fields(samples.coefficient)
            members, truth = samples.coefficient[kept], samples.coefficient_true[kept]
            result = metrics.calibration(members, truth) if kept.any() else None
            if result is None:
                continue
            style = {"color": colours[samples.attributes["run"]], "ls": dash, "lw": 1.4}
            label = f"{run_label(samples)}, K = {members.shape[1]}"
            left.plot(levels, metrics.coverage(members, truth, levels), marker="o", ms=3.5, label=label, **style)
            share = result.ranks / result.ranks.mean()
            right.stairs(share, np.linspace(0, 1, len(share) + 1), baseline=None, **style)
        if len(left.lines) == 1:
            left.text(0.5, 0.5, f"no run has {metrics.MIN_CALIBRATION_SAMPLES} samples per field", ha="center")
        left.set(xlabel="nominal coverage", ylabel="observed coverage", xlim=(0, 1), ylim=(0, 1), aspect="equal")
        left.set_title("Central intervals")
        right.set(
            xlabel="rank of the truth among the samples, scaled to [0, 1]",
            ylabel="frequency / uniform",
            xlim=(0, 1),
            title="Rank histogram",
        )
        right.set_ylim(bottom=0)
        right.set_box_aspect(1)
        figure.legend(*left.get_legend_handles_labels(), loc="outside right center", fontsize=8)
        figure.suptitle(f"Calibration per node, {_setting(runs[0])}", fontsize=9)
    return figure


def tuning(curves: Mapping[str, pd.DataFrame], chosen: Mapping[str, float]) -> Figure:
    """Validation error against the guidance weight, one panel per label, the chosen weight marked.

    curves: label -> columns weight, l2_validation, l2_validation_se (percent; empty where a field diverged).
    chosen: label -> weight.
    """
    with rc_context(_STYLE):
        figure, axes = _panels(len(curves))
        for ax, (label, curve) in zip(axes, curves.items(), strict=False):
            curve = curve.sort_values("weight")
            diverged = curve.loc[curve["l2_validation"].isna(), "weight"]
            curve = curve.dropna(subset=["l2_validation"])
            style: dict[str, Any] = {"color": "#0072B2", "marker": "o", "ms": 4, "lw": 1.3, "capsize": 3}
            ax.errorbar(curve["weight"], curve["l2_validation"], yerr=curve["l2_validation_se"], **style)
            weight = chosen[label]
            ax.axvline(weight, color="#D55E00", ls="--", lw=1.2, label=f"chosen: {weight:g}")
            if len(diverged):
                top = [0.97] * len(diverged)
                ax.plot(diverged, top, "x", color="k", ms=7, transform=ax.get_xaxis_transform(), label="diverged")
            ax.set(xscale="log", yscale="log" if _wide(curve["l2_validation"]) else "linear", title=label)
            ax.set(xlabel="guidance weight", ylabel="relative $l^2$ error, validation, %")
            _plain_ticks(ax)
            ax.legend(fontsize=8)
    return figure


def training_history(histories: Mapping[str, pd.DataFrame]) -> Figure:
    """Loss of training and validation and the learning rate against the step, one column of panels per model.

    histories: model -> columns step, seconds, learning_rate, train_loss, validation_loss (empty where not measured).
    """
    columns = min(3, len(histories))
    rows = -(-len(histories) // columns)
    with rc_context(_STYLE):
        figure = Figure(figsize=(3.7 * columns, 3.8 * rows), layout="constrained")
        heights = (3, 1) * rows
        axes = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=heights)
        for index, (model, history) in enumerate(histories.items()):
            row, column = divmod(index, columns)
            _history(axes[2 * row, column], axes[2 * row + 1, column], model, history)
        for index in range(len(histories), rows * columns):
            row, column = divmod(index, columns)
            axes[2 * row, column].set_axis_off()
            axes[2 * row + 1, column].set_axis_off()
    return figure


def prior_quality(quality: Mapping[str, pd.DataFrame]) -> Figure:
    """Error of the trained denoiser against that of the optimal one, per noise level, and the excess of the first.

    quality: prior -> columns sigma, error, optimal_error, excess.
    """
    with rc_context(_STYLE):
        figure = Figure(figsize=(4.6 * len(quality), 4.6), layout="constrained")
        axes = figure.subplots(2, len(quality), squeeze=False, sharex="col", height_ratios=(2, 1))
        for (top, bottom), (prior, levels) in zip(axes.T, quality.items(), strict=True):
            levels = levels.sort_values("sigma")
            top.loglog(levels["sigma"], levels["optimal_error"], color=TRUTH, lw=1.6, label="optimal denoiser")
            top.loglog(levels["sigma"], levels["error"], color="#0072B2", marker="o", ms=3.5, lw=1.3, label="trained")
            bottom.semilogx(levels["sigma"], levels["excess"], color="#0072B2", marker="o", ms=3.5, lw=1.3)
            bottom.axhline(0, color=TRUTH, lw=1)
            top.set(title=prior, ylabel="denoising error")
            top.legend(fontsize=8)
            bottom.set(xlabel="noise level $\\sigma$ (normalised fields, std 0.5)", ylabel="excess")
        figure.align_ylabels()
    return figure


def pairs(coefficient: NDArray[Any], solution: NDArray[Any], title: str) -> Figure:
    """Pairs of a data set side by side, coefficient above solution, arrays [n, S, S]; each row shares its colours."""
    count = len(coefficient)
    with rc_context(_STYLE | {"axes.grid": False}):
        figure = Figure(figsize=(1.9 * count + 1.2, 4.4), layout="constrained")
        axes = figure.subplots(2, count, squeeze=False, sharex=True, sharey=True)
        for row, fields, name in zip(axes, (coefficient, solution), ("coefficient $a$", "solution $u$"), strict=True):
            scale = _scale(fields)
            for ax, field in zip(row, fields, strict=True):
                picture = _picture(ax, field, scale)
            figure.colorbar(picture, ax=list(row), label=f"{name} (dimensionless)", pad=0.01, format=_plain_number)
        _outer_labels(axes)
        figure.suptitle(title, fontsize=9)
    return figure


def _gallery_field(part: SubFigure, runs: Sequence[Samples], field: int, show: str) -> None:
    first = runs[0]
    truth = first.coefficient_true[field].astype(np.float64)
    estimates = [_estimate(samples, field, show) for samples in runs]
    axes = part.subplots(2, len(runs) + 1, squeeze=False, sharex=True, sharey=True)
    scale = _scale(truth)
    picture = _picture(axes[0, 0], truth, scale)
    axes[0, 0].set_title("truth $a$")
    largest = [np.abs(estimate - truth).max() for estimate in estimates if np.isfinite(estimate).all()]
    # The middle run sets the scale: the worst would wash out the errors of the others.
    top = min(float(np.median(largest)) if largest else 1.0, float(np.ptp(truth)))
    errors = {"cmap": "magma", "vmin": 0.0, "vmax": top}
    for column, (samples, estimate) in enumerate(zip(runs, estimates, strict=True), start=1):
        _picture(axes[0, column], estimate, scale)
        wrong = _picture(axes[1, column], np.abs(estimate - truth), errors)
        size = samples.coefficient.shape[1]
        name = f"mean of {size}" if show == "mean" and size > 1 else "one sample"
        error = 100 * metrics.relative_l2(estimate, truth) if np.isfinite(estimate).all() else None
        axes[0, column].set_title(f"{run_label(samples)}\n{name}")
        axes[1, column].set_title("failed" if error is None else f"error, $l^2$ {error:.1f} %")
    seen = _sensors(axes[1, 0], first.observation[field], first.mask[field])
    part.colorbar(picture, ax=list(axes[0]), label="$a$ (dimensionless)", pad=0.01, extend="both")
    part.colorbar(wrong, ax=list(axes[1]), label="$|\\hat a - a|$ (dimensionless)", pad=0.01, extend="max")
    part.colorbar(seen, ax=axes[1, 0], label="$u$ (dimensionless)", location="left", pad=0.02, format=_plain_number)
    _outer_labels(axes)
    part.suptitle(f"Test field {field}, {_setting(first)}", fontsize=9)


def _estimate(samples: Samples, field: int, show: str) -> NDArray[np.float64]:
    members = samples.coefficient[field].astype(np.float64)
    return np.asarray(members.mean(axis=0) if show == "mean" else members[0])


def _picture(ax: Axes, field: NDArray[Any], scale: Mapping[str, Any]) -> Any:
    half = 0.5 / (field.shape[-1] - 1)
    extent = (-half, 1 + half, -half, 1 + half)
    ax.set(xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
    ax.set_facecolor("0.8")
    return ax.imshow(field.T, origin="lower", extent=extent, interpolation="nearest", **scale)


def _sensors(ax: Axes, observation: NDArray[Any], mask: NDArray[Any]) -> Any:
    i, j = np.nonzero(mask)
    values = observation[mask].astype(np.float64)
    side = mask.shape[-1] - 1
    ax.set(aspect="equal", facecolor="0.92")
    ax.set_title(f"observed $u$, {len(i)} nodes")
    return ax.scatter(i / side, j / side, c=values, s=min(14.0, 2400 / len(i)), marker="s", linewidths=0, **_scale(values))


def _scale(field: NDArray[Any]) -> dict[str, Any]:
    """Colours about zero for fields of both signs, sequential ones for fields of one sign."""
    low, high = float(np.min(field)), float(np.max(field))
    if low < 0 < high:
        top = max(-low, high)
        return {"cmap": "RdBu_r", "vmin": -top, "vmax": top}
    return {"cmap": "viridis", "vmin": low, "vmax": high}


def _plain_number(value: float, _: float) -> str:
    return f"{value:g}"


def _outer_labels(axes: NDArray[Any]) -> None:
    for ax in axes[-1]:
        ax.set_xlabel("$x$")
    for ax in axes[:, 0]:
        ax.set_ylabel("$y$")


def _setting(samples: Samples) -> str:
    side, known = samples.mask.shape[-1], samples.attributes
    return f"{known['problem']}, {side} x {side} nodes, {int(samples.mask[0].sum())} observations"


def _dashes(runs: Sequence[Samples]) -> list[str]:
    """A line style per run, by percent of pairs: solid for the most, then more and more broken."""
    percents = sorted({float(samples.attributes["percent"]) for samples in runs}, reverse=True)
    return [_DASHES[percents.index(float(samples.attributes["percent"])) % len(_DASHES)] for samples in runs]


def _error_curves(ax: Axes, rows: pd.DataFrame, name: str, colours: Mapping[str, str]) -> None:
    for run, group in rows.dropna(subset=[name]).groupby("run", sort=False):
        x, y = group["percent"].to_numpy(float), group[name].to_numpy(float)
        bars = group[f"{name}_se"].fillna(0).to_numpy(float)
        colour = colours[str(run)]
        label = f"{run}, K = {group['n_samples'].iloc[0]}"
        if group["method"].iloc[0] == "exact" or (group["operator"] == "solver").fillna(False).all():
            ax.axhline(y[0], color=colour, ls="--", lw=1.4, label=label)
            ax.axhspan(y[0] - bars[0], y[0] + bars[0], color=colour, alpha=0.15, lw=0)
        else:
            ax.errorbar(x, y, yerr=bars, color=colour, marker="o", ms=4, lw=1.4, capsize=3, label=label)
    ax.set_xscale("log")
    if len(rows):
        percents = sorted(set(rows["percent"].astype(float)))
        ax.set_xticks(percents, [percent_name(percent) for percent in percents])
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.set_xlim(percents[0] / 1.4, percents[-1] * 1.4)
    if _wide(rows[name]):
        ax.set_yscale("log")
        _plain_ticks(ax, "y")
    else:
        ax.set_ylim(bottom=0)


def _wide(values: pd.Series[Any]) -> bool:
    """Whether values differ so much that a linear axis would hide the small ones."""
    values = values.dropna()
    return bool(len(values) and values.min() > 0 and values.max() > 20 * values.min())


def _plain_ticks(ax: Axes, which: Literal["x", "y", "both"] = "both") -> None:
    """Logarithmic axes labelled 1, 2, 5, 10 ... in plain numbers."""
    for axis, name in ((ax.xaxis, "x"), (ax.yaxis, "y")):
        if axis.get_scale() == "log" and which in (name, "both"):
            decades = np.ptp(np.log10(axis.get_view_interval()))
            axis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 2.5 else (1,)))
            axis.set_major_formatter(_plain_number)
            axis.set_minor_formatter(NullFormatter())


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    columns = min(3, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(3.6 * columns + 0.4, 3.1 * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for ax in axes[count:]:
        ax.set_axis_off()
    return figure, axes


def _history(top: Axes, bottom: Axes, model: str, history: pd.DataFrame) -> None:
    for name, colour, label in (("train_loss", "#56B4E9", "training"), ("validation_loss", "#D55E00", "validation")):
        known = history.dropna(subset=[name])
        top.semilogy(known["step"], known[name], color=colour, lw=1.3, label=label)
    bottom.plot(history["step"], history["learning_rate"], color=LIMIT, lw=1.2)
    top.set(title=f"{model} ({history['seconds'].max():.0f} s)", ylabel="loss")
    top.tick_params(labelbottom=False)
    top.legend(fontsize=8)
    bottom.sharex(top)
    bottom.set(xlabel="step", ylabel="learning\nrate")
    bottom.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
