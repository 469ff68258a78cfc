"""Pictures of fields: what was estimated beside the truth, and pairs of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray

from ddis.data.store import Samples
from ddis.evaluation import metrics
from ddis.evaluation.figures.grids import aspect, by_channel, colour_bar, draw_field, ends, proportions, set_ticks
from ddis.evaluation.figures.style import drawing, field_colours, plain_number, run_label, setting
from ddis.grid import Grid, Space

_COLUMNS = 8
"""Pictures beside each other in a gallery, at most; more go below."""


def gallery(runs: Sequence[Samples], fields: Sequence[int], show: Literal["mean", "sample"] = "mean") -> Figure:
    """Truth, observation, and per run an estimate with its error, for every channel of the given test fields.

    show: the mean of the K samples, or the first sample. Colours are shared by truth and estimates, and by all errors, of one
    field. Raises ValueError when the runs do not belong to the same test fields.
    """
    first = runs[0]
    for samples in runs[1:]:
        if not np.array_equal(samples.coefficient_true, first.coefficient_true):
            raise ValueError(f"gallery: run {run_label(samples)!r} has other test fields than {run_label(first)!r}")
    shown = [(field, channel) for field in fields for channel in range(first.spaces[0].channels)]
    blocks = -(-(len(runs) + 1) // _COLUMNS)
    columns = -(-(len(runs) + 1) // blocks)
    width, height = proportions(first.spaces[0].grid)
    with drawing({"axes.grid": False}):
        # By itself the layout leaves too little room for the labels of a part's colour bars.
        layout = ConstrainedLayoutEngine(rect=(0.0, 0.0, 0.985, 1.0))
        size = (1.5 * width * columns + 1.6, (0.4 + 3.5 * height * blocks) * len(shown))
        figure = Figure(figsize=size, layout=layout)
        parts = np.atleast_1d(np.asarray(figure.subfigures(len(shown), 1)))
        for part, (field, channel) in zip(parts, shown, strict=True):
            _gallery_field(part, runs, field, channel, show, (blocks, columns))
    return figure


def portrait(samples: Samples, field: int, channel: int = 0) -> Figure:
    """What one run says about one test field: truth, mean, one sample, the samples' standard deviation, and the mean's error.

    The first three share their colours, the last two theirs. Of a run of one sample, that sample and its error are shown.
    """
    space = samples.spaces[0]
    grid, own = space.grid, Space(space.grid)
    truth = by_channel(samples.coefficient_true[field], space)[channel]
    members = by_channel(samples.coefficient[field], space)[:, channel]
    mean = members.mean(axis=0)
    shown = {"truth a": truth, f"one sample, l² error {100 * metrics.relative_l2(members[0], truth, own):.1f} %": members[0]}
    widths = {"error": np.abs(mean - truth)}
    if len(members) > 1:
        shown[f"mean of {len(members)}, l² error {100 * metrics.relative_l2(mean, truth, own):.1f} %"] = mean
        widths = {"standard deviation": members.std(axis=0, ddof=1), "error of the mean": widths["error"]}
    top = np.quantile([*widths.values()], 0.995)
    width, height = proportions(grid)
    with drawing({"axes.grid": False}):
        figure = Figure(figsize=(2.35 * width * len(shown | widths) + 1.4, 2.9 * height), layout="constrained")
        axes = figure.subplots(1, len(shown | widths), squeeze=False, sharex=True, sharey=len(grid.shape) == 2)
        left, right = axes[0, : len(shown)], axes[0, len(shown) :]
        for ax, (title, values) in zip(left, shown.items(), strict=True):
            picture = draw_field(ax, values, field_colours(truth), grid)
            ax.set_title(title)
        colour_bar(figure, picture, list(left), "a (dimensionless)", pad=0.01, extend="both")
        for ax, (title, values) in zip(right, widths.items(), strict=True):
            picture = draw_field(ax, values, {"cmap": "magma", "vmin": 0.0, "vmax": top}, grid)
            ax.set_title(title)
        colour_bar(figure, picture, list(right), "dimensionless", pad=0.01, extend="max")
        _outer_labels(axes, grid)
        figure.suptitle(f"{run_label(samples)}: test field {field}, {setting(samples)}", fontsize=9)
    return figure


def pairs(coefficient: NDArray[Any], solution: NDArray[Any], title: str, spaces: tuple[Space, Space]) -> Figure:
    """Pairs of a data set side by side, arrays [n, *shape], coefficient above solution; a row is one channel."""
    count, rows = len(coefficient), []
    for fields, space, name in zip((coefficient, solution), spaces, ("coefficient a", "solution u"), strict=True):
        channels = by_channel(fields, space)
        numbers = [f" {channel + 1}" if space.channels > 1 else "" for channel in range(space.channels)]
        rows += [(channels[:, i], space.grid, f"{name}{number}") for i, number in enumerate(numbers)]
    width, height = (max(sizes) for sizes in zip(*(proportions(space.grid) for space in spaces), strict=True))
    with drawing({"axes.grid": False}):
        figure = Figure(figsize=(1.9 * width * count + 1.2, 2.2 * height * len(rows)), layout="constrained")
        axes = figure.subplots(len(rows), count, squeeze=False)
        for number, (row, (fields, grid, name)) in enumerate(zip(axes, rows, strict=True), start=1):
            scale = field_colours(fields)
            for ax, field in zip(row, fields, strict=True):
                picture = draw_field(ax, field, scale, grid)
            colour_bar(figure, picture, list(row), f"{name} (dimensionless)", pad=0.01, format=plain_number)
            line = len(grid.shape) == 1
            row[0].set_ylabel(name if line else grid.names[1], style="normal" if line else "italic")
            for ax in row[1:]:
                ax.yaxis.set_visible(False)
            for ax in row:
                ax.xaxis.set_visible(line or number == len(rows))  # graphs are wider than pictures
        for ax in axes[-1]:
            ax.set_xlabel(spaces[1].grid.names[0], style="italic")
        figure.suptitle(title, fontsize=9)
    return figure


def _gallery_field(part: SubFigure, runs: Sequence[Samples], field: int, channel: int, show: str, shape: tuple[int, int]) -> None:
    """Truth and observation, then every run, estimates above errors, in blocks of columns."""
    first = runs[0]
    space, seen_space = first.spaces
    grid, own = space.grid, Space(space.grid)
    truth = by_channel(first.coefficient_true[field], space)[channel]
    estimates = [by_channel(_estimate(samples, field, show), space)[channel] for samples in runs]
    blocks, columns = shape
    axes = part.subplots(2 * blocks, columns, squeeze=False)
    above, below = axes[::2].ravel(), axes[1::2].ravel()
    scale = field_colours(truth)
    picture = draw_field(above[0], truth, scale, grid)
    above[0].set_title("truth a")
    largest = [np.abs(estimate - truth).max() for estimate in estimates if np.isfinite(estimate).all()]
    # The middle run sets the scale: the worst would wash out the errors of the others.
    top = min(float(np.median(largest)) if largest else 1.0, float(np.ptp(truth)))
    errors = {"cmap": "magma", "vmin": 0.0, "vmax": top}
    for place, (samples, estimate) in enumerate(zip(runs, estimates, strict=True), start=1):
        draw_field(above[place], estimate, scale, grid)
        wrong = draw_field(below[place], np.abs(estimate - truth), errors, grid)
        size = samples.coefficient.shape[1]
        name = f"mean of {size}" if show == "mean" and size > 1 else "one sample"
        error = 100 * metrics.relative_l2(estimate, truth, own) if np.isfinite(estimate).all() else None
        run, _, percent = run_label(samples).partition(", ")
        above[place].set_title(f"{run}\n{', '.join(filter(None, (percent, name)))}")
        below[place].set_title("failed" if error is None else f"error, l² {error:.1f} %")
    for ax in (*above[len(runs) + 1 :], *below[len(runs) + 1 :]):
        ax.set_axis_off()
    seen = _sensors(below[0], first.observation[field], first.mask[field], seen_space.grid)
    colour_bar(part, picture, list(axes[0]), "a (dimensionless)", pad=0.01, extend="both")
    colour_bar(part, wrong, list(axes[1]), "|â - a| (dimensionless)", pad=0.01, extend="max")
    colour_bar(part, seen, below[0], "u (dimensionless)", location="left", pad=0.02, format=plain_number)
    _outer_labels(axes, grid)
    what = f", channel {channel + 1}" if space.channels > 1 else ""
    part.suptitle(f"Test field {field}{what}, {setting(first)}", fontsize=9)


def _estimate(samples: Samples, field: int, show: str) -> NDArray[np.float64]:
    members = samples.coefficient[field].astype(np.float64)
    return np.asarray(members.mean(axis=0) if show == "mean" else members[0])


def _sensors(ax: Axes, observation: NDArray[Any], mask: NDArray[Any], grid: Grid) -> Any:
    """Observed values as coloured points, which are returned for a colour bar; on a line as points of a graph, and None."""
    index, values = np.nonzero(mask), observation[mask].astype(np.float64)
    places = [axis[i] for axis, i in zip(grid.coordinates(), index, strict=True)]
    x, y = places[0], places[-1]
    ax.set_ylabel("" if len(grid.shape) == 1 else grid.names[1], style="italic")
    ax.set(facecolor="0.92", xlim=ends(grid, 0))
    set_ticks(ax, grid)
    ax.set_title(f"observed u, {len(values)} nodes")
    if len(grid.shape) == 1:
        ax.plot(x, values, "s", ms=3)
        return None
    ax.set(aspect=aspect(grid), ylim=ends(grid, 1))
    size = min(14.0, 2400 / len(values))
    return ax.scatter(x, y, c=values, s=size, marker="s", linewidths=0, **field_colours(values))


def _outer_labels(axes: NDArray[Any], grid: Grid) -> None:
    """Ticks and names of the axes at the lower and the left edge alone; graphs have scales of their own."""
    for ax in axes[-1]:
        ax.set_xlabel(grid.names[0], style="italic")
    if len(grid.shape) == 2:
        for ax in axes[:-1].flat:
            ax.xaxis.set_visible(False)
        for ax in axes[:, 1:].flat:
            ax.yaxis.set_visible(False)
        for ax in axes[:, 0]:
            ax.set_ylabel(grid.names[1], style="italic")
