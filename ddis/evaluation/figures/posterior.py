"""The posterior of a user's own observations: what was seen, the mean, the standard deviation, and two samples."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ddis.data.observations import Observations
from ddis.evaluation.figures.grids import aspect, by_channel, colour_bar, draw_field, ends, proportions, set_ticks
from ddis.evaluation.figures.style import drawing, field_colours, plain_number
from ddis.grid import Grid, Space

Array = NDArray[Any]
LARGEST = 24.0  # width in inches


def picture(
    data: Observations, fields: tuple[Array, Array, Array], spaces: tuple[Space, Space], names: tuple[str, str], title: str
) -> Figure:
    """Observed points, mean, standard deviation and the first two samples; a row for every channel.

    Observed values of the coefficient are squares on the mean, in the same colours. Mean and samples share their colours.

    Args:
        fields: mean, std [*shape] and samples [K, *shape] of the coefficient.
        spaces, names: of coefficient and solution; names with their units.
    """
    coefficient, solution = spaces
    mean, std, samples = (by_channel(field, coefficient) for field in fields)
    rows = max(coefficient.channels, solution.channels)
    sizes = proportions(solution.grid), *[proportions(coefficient.grid)] * 4
    widths, height = [width for width, _ in sizes], max(height for _, height in sizes)
    with drawing({"axes.grid": False}):
        scale = min(1.0, LARGEST / (2.8 * sum(widths)))
        figure = Figure(figsize=(2.8 * scale * sum(widths), 0.3 + 2.6 * scale * height * rows), layout="constrained")
        axes = figure.subplots(rows, 5, squeeze=False, width_ratios=widths)
        for channel, row in enumerate(axes):
            if channel < solution.channels:
                _seen(figure, row[0], data, channel, solution.grid, names[1])
            else:
                row[0].set_axis_off()
            if channel < coefficient.channels:
                label = names[0] + f", channel {channel}" * (coefficient.channels > 1)
                shown = mean[channel], std[channel], samples[:, channel]
                _estimates(figure, list(row[1:]), data, channel, shown, coefficient.grid, label)
            else:
                for ax in row[1:]:
                    ax.set_axis_off()
        figure.suptitle(title, fontsize=9)
    return figure


def _seen(figure: Figure, ax: Axes, data: Observations, channel: int, grid: Grid, name: str) -> None:
    """Observed values of a solution."""
    rows = ~data.of & (data.channel == channel)
    values, places = data.value[rows], [data.places[rows, data.axes.index(axis)] for axis in grid.axes]
    ax.set_title(f"{values.size} {'values of the solution' if data.of.any() else 'observations'}")
    ax.set(facecolor="0.92", xlim=ends(grid, 0))
    ax.set_xlabel(grid.names[0], style="italic")
    set_ticks(ax, grid)
    if len(grid.shape) == 1:
        ax.plot(places[0], values, "o", ms=3)
        ax.set_ylabel(name)
        return
    ax.set(ylim=ends(grid, 1), aspect=aspect(grid))
    ax.set_ylabel(grid.names[1], style="italic")
    if values.size:
        seen = ax.scatter(places[0], places[1], c=values, s=min(18.0, 4000 / values.size), **field_colours(values))
        figure.colorbar(seen, ax=ax, label=name, format=plain_number)


def _estimates(
    figure: Figure, axes: list[Axes], data: Observations, channel: int, shown: tuple[Array, Array, Array], grid: Grid, name: str
) -> None:
    """Mean, standard deviation and two samples of one channel of a coefficient, with its observed values on the mean."""
    mean, std, samples = shown
    rows = data.of & (data.channel == channel)
    values, places = data.value[rows], [data.places[rows, data.axes.index(axis)] for axis in grid.axes]
    shared = field_colours(mean, samples[:2], *[values] * bool(values.size))
    fields: list[tuple[str, Array, dict[str, Any]]] = [
        (f"mean of {len(samples)} samples" + f", {values.size} values" * bool(values.size), mean, shared),
        ("standard deviation", std, {"cmap": "magma", "vmin": 0.0, "vmax": float(np.max(std))}),
        *((f"sample {number}", field, shared) for number, field in enumerate(samples[:2], start=1)),
    ]
    line = len(grid.shape) == 1
    for ax, (text, field, scale) in zip(axes, fields, strict=True):
        colour_bar(figure, draw_field(ax, field, scale, grid), ax, name, format=plain_number)
        ax.set_title(text)
        ax.set_xlabel(grid.names[0], style="italic")
        ax.tick_params(labelleft=line)
    if line:
        axes[0].set_ylabel(name)
    if values.size and line:
        axes[0].plot(places[0], values, "s", ms=4, color="black", mfc="none")
    elif values.size:
        marks = {"marker": "s", "s": min(24.0, 4000 / values.size), "edgecolors": "black", "linewidths": 0.8, "clip_on": False}
        axes[0].scatter(places[0], places[1], c=values, **marks, **shared)
