"""Pictures of fields: what was estimated beside the truth, and pairs of a data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray

from ddis.data.store import Samples
from ddis.evaluation import metrics
from ddis.evaluation.figures.style import drawing, field_colours, plain_number, run_label, setting
from ddis.pde import PROBLEMS

_COLUMNS = 8
"""Pictures beside each other in a gallery, at most; more go below."""


def gallery(runs: Sequence[Samples], fields: Sequence[int], show: Literal["mean", "sample"] = "mean") -> Figure:
    """Truth, observation, and per run an estimate with its error, for the given test fields.

    show: the mean of the K samples, or the first sample. Colours are shared by truth and estimates, and by all errors, of one
    field. Raises ValueError when the runs do not belong to the same test fields.
    """
    first = runs[0]
    for samples in runs[1:]:
        if not np.array_equal(samples.coefficient_true, first.coefficient_true):
            raise ValueError(f"gallery: run {run_label(samples)!r} has other test fields than {run_label(first)!r}")
    blocks = -(-(len(runs) + 1) // _COLUMNS)
    columns = -(-(len(runs) + 1) // blocks)
    with drawing({"axes.grid": False}):
        # By itself the layout leaves too little room for the labels of a part's colour bars.
        layout = ConstrainedLayoutEngine(rect=(0.0, 0.0, 0.985, 1.0))
        figure = Figure(figsize=(1.5 * columns + 1.6, (0.4 + 3.5 * blocks) * len(fields)), layout=layout)
        parts = np.atleast_1d(np.asarray(figure.subfigures(len(fields), 1)))
        for part, field in zip(parts, fields, strict=True):
            _gallery_field(part, runs, field, show, (blocks, columns))
    return figure


def portrait(samples: Samples, field: int) -> Figure:
    """What one run says about one test field: truth, mean, one sample, the samples' standard deviation, and the mean's error.

    The first three share their colours, the last two theirs. Of a run of one sample, that sample and its error are shown.
    """
    truth, members = samples.coefficient_true[field].astype(np.float64), samples.coefficient[field].astype(np.float64)
    mean = members.mean(axis=0)
    shown = {"truth $a$": truth, f"one sample, $l^2$ error {100 * metrics.relative_l2(members[0], truth):.1f} %": members[0]}
    widths = {"error": np.abs(mean - truth)}
    if len(members) > 1:
        shown[f"mean of {len(members)}, $l^2$ error {100 * metrics.relative_l2(mean, truth):.1f} %"] = mean
        widths = {"standard deviation": members.std(axis=0, ddof=1), "error of the mean": widths["error"]}
    top = np.quantile([*widths.values()], 0.995)
    with drawing({"axes.grid": False}):
        figure = Figure(figsize=(2.35 * len(shown | widths) + 1.4, 2.9), layout="constrained")
        axes = figure.subplots(1, len(shown | widths), squeeze=False, sharex=True, sharey=True)
        left, right = axes[0, : len(shown)], axes[0, len(shown) :]
        for ax, (title, values) in zip(left, shown.items(), strict=True):
            picture = _picture(ax, values, field_colours(truth), _is_periodic(samples))
            ax.set_title(title)
        figure.colorbar(picture, ax=list(left), label="$a$ (dimensionless)", pad=0.01, extend="both")
        for ax, (title, values) in zip(right, widths.items(), strict=True):
            picture = _picture(ax, values, {"cmap": "magma", "vmin": 0.0, "vmax": top}, _is_periodic(samples))
            ax.set_title(title)
        figure.colorbar(picture, ax=list(right), label="dimensionless", pad=0.01, extend="max")
        _outer_labels(axes)
        figure.suptitle(f"{run_label(samples)}: test field {field}, {setting(samples)}", fontsize=9)
    return figure


def pairs(coefficient: NDArray[Any], solution: NDArray[Any], title: str, periodic: bool = False) -> Figure:
    """Pairs of a data set side by side, coefficient above solution, arrays [n, S, S]; each row shares its colours."""
    count = len(coefficient)
    with drawing({"axes.grid": False}):
        figure = Figure(figsize=(1.9 * count + 1.2, 4.4), layout="constrained")
        axes = figure.subplots(2, count, squeeze=False, sharex=True, sharey=True)
        for row, fields, name in zip(axes, (coefficient, solution), ("coefficient $a$", "solution $u$"), strict=True):
            scale = field_colours(fields)
            for ax, field in zip(row, fields, strict=True):
                picture = _picture(ax, field, scale, periodic)
            figure.colorbar(picture, ax=list(row), label=f"{name} (dimensionless)", pad=0.01, format=plain_number)
        _outer_labels(axes)
        figure.suptitle(title, fontsize=9)
    return figure


def _gallery_field(part: SubFigure, runs: Sequence[Samples], field: int, show: str, shape: tuple[int, int]) -> None:
    """Truth and observation, then every run, estimates above errors, in blocks of columns."""
    first = runs[0]
    truth, periodic = first.coefficient_true[field].astype(np.float64), _is_periodic(first)
    estimates = [_estimate(samples, field, show) for samples in runs]
    blocks, columns = shape
    grid = part.subplots(2 * blocks, columns, squeeze=False, sharex=True, sharey=True)
    above, below = grid[::2].ravel(), grid[1::2].ravel()
    scale = field_colours(truth)
    picture = _picture(above[0], truth, scale, periodic)
    above[0].set_title("truth $a$")
    largest = [np.abs(estimate - truth).max() for estimate in estimates if np.isfinite(estimate).all()]
    # The middle run sets the scale: the worst would wash out the errors of the others.
    top = min(float(np.median(largest)) if largest else 1.0, float(np.ptp(truth)))
    errors = {"cmap": "magma", "vmin": 0.0, "vmax": top}
    for place, (samples, estimate) in enumerate(zip(runs, estimates, strict=True), start=1):
        _picture(above[place], estimate, scale, periodic)
        wrong = _picture(below[place], np.abs(estimate - truth), errors, periodic)
        size = samples.coefficient.shape[1]
        name = f"mean of {size}" if show == "mean" and size > 1 else "one sample"
        error = 100 * metrics.relative_l2(estimate, truth) if np.isfinite(estimate).all() else None
        run, _, percent = run_label(samples).partition(", ")
        above[place].set_title(f"{run}\n{', '.join(filter(None, (percent, name)))}")
        below[place].set_title("failed" if error is None else f"error, $l^2$ {error:.1f} %")
    for ax in (*above[len(runs) + 1 :], *below[len(runs) + 1 :]):
        ax.set_axis_off()
    seen = _sensors(below[0], first.observation[field], first.mask[field], periodic)
    part.colorbar(picture, ax=list(grid[0]), label="$a$ (dimensionless)", pad=0.01, extend="both")
    part.colorbar(wrong, ax=list(grid[1]), label="$|\\hat a - a|$ (dimensionless)", pad=0.01, extend="max")
    part.colorbar(seen, ax=below[0], label="$u$ (dimensionless)", location="left", pad=0.02, format=plain_number)
    _outer_labels(grid)
    part.suptitle(f"Test field {field}, {setting(first)}", fontsize=9)


def _estimate(samples: Samples, field: int, show: str) -> NDArray[np.float64]:
    members = samples.coefficient[field].astype(np.float64)
    return np.asarray(members.mean(axis=0) if show == "mean" else members[0])


def _side(size: int, periodic: bool) -> int:
    """Steps from node to node in one side of the domain."""
    return size if periodic else size - 1


def _is_periodic(samples: Samples) -> bool:
    problem = PROBLEMS.load(samples.attributes["pde"])
    return bool(problem.basis == "fourier")


def _picture(ax: Axes, field: NDArray[Any], scale: Mapping[str, Any], periodic: bool) -> Any:
    side = _side(field.shape[-1], periodic)
    low, high = -0.5 / side, (field.shape[-1] - 0.5) / side
    extent = (low, high, low, high)
    ax.set(xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
    ax.set_facecolor("0.8")
    return ax.imshow(field.T, origin="lower", extent=extent, interpolation="nearest", **scale)


def _sensors(ax: Axes, observation: NDArray[Any], mask: NDArray[Any], periodic: bool) -> Any:
    i, j = np.nonzero(mask)
    values = observation[mask].astype(np.float64)
    side = _side(mask.shape[-1], periodic)
    ax.set(aspect="equal", facecolor="0.92")
    ax.set_title(f"observed $u$, {len(i)} nodes")
    return ax.scatter(i / side, j / side, c=values, s=min(14.0, 2400 / len(i)), marker="s", linewidths=0, **field_colours(values))


def _outer_labels(axes: NDArray[Any]) -> None:
    for ax in axes[-1]:
        ax.set_xlabel("$x$")
    for ax in axes[:, 0]:
        ax.set_ylabel("$y$")
