"""Values at points anywhere in the domain, by (bi)linear interpolation between the nodes.

Between nodes a solution bends: u - (interpolated u) = -Σ_axis 1/2 f (1 - f) h² ∂²u + ..., at the fraction f of a cell of side h.
This error of the interpolation, estimated on typical solutions, is a part of R.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from ddis.errors import InputError
from ddis.grid import Grid
from ddis.lazy import torch
from ddis.observe.base import Functionals, Sensors, SensorSettings
from ddis.randomness import generator

if TYPE_CHECKING:
    from torch import Tensor


def cells(points: NDArray[np.float64], grid: Grid) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Lower corner [m, d] of the cell that each of the points [m, d] lies in, and the fraction [m, d] of the cell.

    On periodic axes the last cell ends at the first node. Raises InputError for points outside the domain.
    """
    lower, part = [], []
    for axis, (size, length, wraps) in enumerate(zip(grid.shape, grid.lengths, grid.periodic, strict=True)):
        outside = np.flatnonzero(~((points[:, axis] >= 0) & (points[:, axis] <= length * (1 + 1e-9))))
        if outside.size:
            raise InputError(f"point {tuple(points[outside[0]].tolist())} is outside the domain; accepted: 0 to {length:g}")
        place = points[:, axis] / length * (size if wraps else size - 1)
        nearest = np.round(place)
        place = np.where(np.abs(place - nearest) < 1e-6, nearest, place)  # so that a node is a node
        cell = np.minimum(np.floor(place).astype(np.int64), size - 1 if wraps else size - 2)
        lower.append(cell)
        part.append(place - cell)
    return np.stack(lower, axis=1), np.stack(part, axis=1)


def interpolation(points: NDArray[np.float64], grid: Grid) -> Functionals:
    """Linear interpolation along each axis, at the points [m, d]: 2^d corners of a cell each."""
    lower, part = cells(points, grid)
    corners, weights = [], []
    for shift in product((0, 1), repeat=lower.shape[1]):
        place = (lower + shift) % grid.shape
        corners.append(np.ravel_multi_index(tuple(place.T), grid.shape))
        weights.append(np.where(shift, part, 1 - part).prod(axis=1))
    index, weight = np.stack(corners, axis=1), np.stack(weights, axis=1)
    outside = (~grid.nodes.flatten()[index] & (weight > 0)).any(axis=1)
    if outside.any():
        raise InputError(f"point {tuple(points[np.flatnonzero(outside)[0]].tolist())} is outside the domain")
    return Functionals(torch.from_numpy(index), torch.from_numpy(weight), int(np.prod(grid.shape)))


def interpolation_variance(points: NDArray[np.float64], grid: Grid, fields: Tensor) -> Tensor:
    """Mean squared error [m] of the interpolation, to leading order, over smooth fields [N, *shape]."""
    places, fraction = interpolation(points, grid), torch.from_numpy(cells(points, grid)[1])
    error = torch.zeros(len(fields), len(points), dtype=torch.float64)
    for axis, wraps in enumerate(grid.periodic, start=1):
        bend = torch.roll(fields, 1, axis) - 2 * fields + torch.roll(fields, -1, axis)
        if not wraps:  # the last nodes have one neighbour only
            size = bend.shape[axis]
            bend = bend.index_select(axis, torch.arange(size, device=bend.device).clamp(1, size - 2))
        f = fraction[:, axis - 1]
        error = error - 0.5 * f * (1 - f) * places(bend.double().flatten(1).cpu())
    return (error**2).mean(dim=0)


class PointsSettings(SensorSettings):
    """at: coordinates of each point; or count of them at random in the unit square. They are the same for all fields.

    Simulated values are interpolated from the nodes, so that no error of interpolation is assumed in a study.
    """

    at: tuple[tuple[float, ...], ...] | None = None
    count: int | None = Field(None, ge=1)


class Points(Sensors):
    """points: [m, d], in units of the domain; between_nodes: whether the values are of more than the nodes' interpolation."""

    Settings: ClassVar[type[SensorSettings]] = PointsSettings

    def __init__(
        self,
        points: ArrayLike,
        noise: ArrayLike = 0.0,
        assumed_noise: ArrayLike | None = None,
        between_nodes: bool = True,
    ):
        super().__init__(noise, assumed_noise)
        self.points = np.asarray(points, dtype=np.float64)
        self.between_nodes = between_nodes
        if self.points.ndim != 2 or not len(self.points) or not np.isfinite(self.points).all():
            raise InputError(f"points of shape {self.points.shape}; accepted: [m, axes], finite, at least one")

    @classmethod
    def of_settings(cls, settings: PointsSettings) -> Points:
        if (settings.at is None) == (settings.count is None):
            raise InputError("points: accepted: either at, a list of coordinates, or count")
        if settings.at is None:
            rng = generator(0, "points")
            return cls(rng.random((settings.count or 0, 2)), settings.noise, settings.assumed_noise, between_nodes=False)
        return cls(settings.at, settings.noise, settings.assumed_noise, between_nodes=False)

    def functionals(self, grid: Grid) -> Functionals:
        if self.points.shape[1] != len(grid.shape):
            raise InputError(f"points with {self.points.shape[1]} coordinates on {grid} nodes; accepted: {len(grid.shape)}")
        return interpolation(self.points, grid)

    def where(self, number: int) -> str:
        return f"at ({', '.join(f'{x:g}' for x in self.points[number])})"

    def own_error(self, grid: Grid, fields: Tensor) -> Tensor | None:
        return interpolation_variance(self.points, grid, fields) if self.between_nodes else None
