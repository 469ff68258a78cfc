"""How a field on a grid is drawn: its proportions and axes, as colours or, on a line, as a graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import FixedLocator
from numpy.typing import NDArray

from ddis.grid import Grid, Space

LONGEST = 3.0
"""Longest side of a picture, in units of the other; what is longer is drawn out of proportion."""


def by_channel(fields: NDArray[Any], space: Space) -> NDArray[np.float64]:
    """Fields [..., *shape] as [..., C, *nodes], float64."""
    before = fields.shape[: fields.ndim - len(space.shape)]
    return fields.astype(np.float64).reshape(*before, space.channels, *space.grid.shape)


def proportions(grid: Grid) -> tuple[float, float]:
    """Width and height of a picture, in units of those of a square's."""
    if len(grid.shape) == 1:
        return 1.3, 1.0
    ratio = grid.lengths[0] / grid.lengths[1]
    return min(LONGEST, max(1.0, ratio)), min(LONGEST, max(1.0, 1 / ratio))


def aspect(grid: Grid) -> Literal["equal", "auto"]:
    return "equal" if max(proportions(grid)) < LONGEST else "auto"


def ends(grid: Grid, axis: int) -> tuple[float, float]:
    """Where an axis of a picture begins and ends: half a spacing outside the nodes."""
    half, places = grid.spacing[axis] / 2, grid.coordinates()[axis]
    return float(places[0]) - half, float(places[-1]) + half


def set_ticks(ax: Axes, grid: Grid) -> None:
    """At the ends and in the middle; that at the end of a period, which no node stands at, is out of sight."""
    for axis, length in zip((ax.xaxis, ax.yaxis), grid.lengths, strict=False):
        axis.set_major_locator(FixedLocator([0.0, length / 2, length]))


def draw_field(ax: Axes, field: NDArray[Any], scale: Mapping[str, Any], grid: Grid) -> Any:
    """A field as colours, blank outside the domain, which are returned for a colour bar; on a line its graph, and None."""
    ax.set_xlim(ends(grid, 0))
    set_ticks(ax, grid)
    if len(grid.shape) == 1:
        ax.plot(*grid.coordinates(), field, color="#0072B2", lw=1.2)
        margin = 0.05 * (scale["vmax"] - scale["vmin"])
        ax.set_ylim(scale["vmin"] - margin, scale["vmax"] + margin)
        return None
    ax.set_facecolor("0.8")
    shown = np.ma.masked_array(field.T, mask=~grid.nodes.T)
    extent = (*ends(grid, 0), *ends(grid, 1))
    return ax.imshow(shown, origin="lower", extent=extent, interpolation="nearest", aspect=aspect(grid), **scale)


def colour_bar(figure: Figure | SubFigure, picture: Any, axes: Any, label: str, **options: Any) -> None:
    """For pictures; graphs have their values at the axis."""
    if picture is not None:
        figure.colorbar(picture, ax=axes, label=label, **options)
