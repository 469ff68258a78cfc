"""Values at points anywhere in the domain, by (bi)linear interpolation between the nodes.

Between nodes a solution bends: u - (interpolated u) = -Σ_axis 1/2 f (1 - f) h² ∂²u + ..., at the fraction f of a cell of side h.
This error of the interpolation, estimated on typical solutions, is a part of R.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from ddis.arrays import numbers, whole_numbers
from ddis.errors import InputError
from ddis.grid import Grid
from ddis.lazy import torch
from ddis.observe.base import Functionals, Sensors, SensorSettings
from ddis.randomness import generator

if TYPE_CHECKING:
    from torch import Tensor


def interpolation(points: NDArray[np.float64], grid: Grid) -> Functionals:
    """Linear interpolation along each axis, at the points [m, d]: 2^d corners of a cell each. Raises InputError for others."""
    outside = np.flatnonzero(~grid.contains(points))
    if outside.size:
        ends = ", ".join(f"{name} from 0 to {length:g}" for name, length in zip(grid.axes, grid.lengths, strict=True))
        masked = "" if grid.mask is None else ", between nodes of the domain's mask"
        raise InputError(f"point {tuple(points[outside[0]].tolist())} is outside the domain; accepted: {ends}{masked}")
    index, weights = grid.corners(points)
    return Functionals(torch.from_numpy(index), torch.from_numpy(weights), int(np.prod(grid.shape)))


def interpolation_variance(points: NDArray[np.float64], grid: Grid, fields: Tensor) -> Tensor:
    """Mean squared error [m] of the interpolation, to leading order, over smooth fields [N, *shape]."""
    places, fraction = interpolation(points, grid), torch.from_numpy(grid.cells(points)[1])
    error = torch.zeros(len(fields), len(points), dtype=torch.float64)
    for axis, wraps in enumerate(grid.periodic, start=1):
        bend = torch.roll(fields, 1, axis) - 2 * fields + torch.roll(fields, -1, axis)
        if not wraps:  # the last nodes have one neighbour only
            size = bend.shape[axis]
            bend = bend.index_select(axis, torch.arange(size, device=bend.device).clamp(1, size - 2))
        f = fraction[:, axis - 1]
        error = error - 0.5 * f * (1 - f) * places(bend.double().flatten(1).cpu())
    return (error**2).mean(dim=0)


def drawn_points(count: int, grid: Grid) -> NDArray[np.float64]:
    """Points [m, d] at random in the domain, the same for all fields."""
    rng = generator(0, "points")
    points = np.empty((0, len(grid.shape)))
    while len(points) < count:
        more = rng.random((count, len(grid.shape))) * grid.lengths
        points = np.concatenate([points, more[grid.contains(more)]])
    return points[:count]


class PointsSettings(SensorSettings):
    """at: coordinates of each point; or count of them at random in the domain. They are the same for all fields.

    Simulated values are interpolated from the nodes, so that no error of interpolation is assumed in a study.
    """

    at: tuple[tuple[float, ...], ...] | None = None
    count: int | None = Field(None, ge=1)


class Points(Sensors):
    """points: [m, d], in the domain's units, or a number of them, to draw; between_nodes: whether values are not interpolated."""

    Settings: ClassVar[type[SensorSettings]] = PointsSettings

    def __init__(
        self,
        points: ArrayLike,
        noise: ArrayLike = 0.0,
        assumed_noise: ArrayLike | None = None,
        between_nodes: bool = True,
    ):
        super().__init__(noise, assumed_noise)
        self.points = numbers("points", points)
        if not self.points.ndim:
            whole_numbers("points", self.points)
        self.between_nodes = between_nodes
        if self.points.ndim and (self.points.ndim != 2 or not len(self.points) or not np.isfinite(self.points).all()):
            raise InputError(f"points of shape {self.points.shape}; accepted: [m, axes], finite, at least one")

    @classmethod
    def of_settings(cls, settings: PointsSettings) -> Points:
        if (settings.at is None) == (settings.count is None):
            raise InputError("points: accepted: either at, a list of coordinates, or count")
        given: ArrayLike = settings.count or 0 if settings.at is None else settings.at
        return cls(given, settings.noise, settings.assumed_noise, between_nodes=False)

    def places(self, grid: Grid) -> NDArray[np.float64]:
        """The points [m, d]. Raises InputError if they have other coordinates than the grid."""
        if not self.points.ndim:
            if self.points > (nodes := int(grid.nodes.sum())):
                raise InputError(f"count {int(self.points)}: more observations than nodes; accepted: 1 to {nodes}")
            return drawn_points(int(self.points), grid)
        if self.points.shape[1] != len(grid.shape):
            raise InputError(f"points with {self.points.shape[1]} coordinates on {grid} nodes; accepted: {len(grid.shape)}")
        return self.points

    def functionals(self, grid: Grid) -> Functionals:
        return interpolation(self.places(grid), grid)

    def where(self, number: int) -> str:
        if not self.points.ndim:
            return super().where(number)
        return f"at ({', '.join(f'{x:g}' for x in self.points[number])})"

    def own_error(self, grid: Grid, fields: Tensor) -> Tensor | None:
        return interpolation_variance(self.places(grid), grid, fields) if self.between_nodes else None
