"""Values at nodes of the solution: given ones, or some that are drawn for every field."""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from ddis.arrays import whole_numbers
from ddis.errors import InputError
from ddis.grid import Grid
from ddis.lazy import torch
from ddis.observe.base import Functionals, Sensors, SensorSettings
from ddis.randomness import generator


def available_nodes(grid: Grid, boundary: bool = False) -> NDArray[np.int64]:
    """Flat indices of the nodes that may be drawn: those not on the boundary, where the solution is known, or all."""
    return np.flatnonzero(grid.nodes if boundary else grid.interior)


def draw_nodes(grid: Grid, count: int, seed: int, *field: int, boundary: bool = False) -> NDArray[np.int64]:
    """Sorted flat indices [count] of distinct observed nodes, drawn from (seed, field) alone.

    Raises InputError if there are more observations than nodes, or none.
    """
    nodes = available_nodes(grid, boundary)
    if not 1 <= count <= len(nodes):
        raise InputError(
            f"count {count}: {'more observations than nodes' if count > 0 else 'no observation'}; accepted: 1 to {len(nodes)}"
        )
    return np.sort(generator(seed, "mask", *field).choice(nodes, size=count, replace=False))


class NodesSettings(SensorSettings):
    """count nodes; boundary: drawn from all of the domain's, its boundary included; shared: the same ones for all fields."""

    count: int = Field(ge=1)
    placement: Literal["random"] = "random"
    boundary: bool = False
    shared: bool = False


class Nodes(Sensors):
    """index: flat nodes [m], or [n, m] where n fields are observed at nodes of their own; or a number of them, to draw.

    boundary, shared: of drawn nodes, as of the settings.
    """

    Settings = NodesSettings

    def __init__(
        self,
        index: ArrayLike,
        noise: ArrayLike = 0.0,
        assumed_noise: ArrayLike | None = None,
        *,
        boundary: bool = False,
        shared: bool = False,
    ):
        super().__init__(noise, assumed_noise)
        self.index, self.boundary, self.shared = whole_numbers("index", index), boundary, shared
        if self.index.ndim > 2:
            raise InputError(f"index of shape {self.index.shape}; accepted: flat nodes [m], [n, m] of n fields, or how many")

    @classmethod
    def of_settings(cls, settings: NodesSettings) -> "Nodes":
        return cls(settings.count, settings.noise, settings.assumed_noise, boundary=settings.boundary, shared=settings.shared)

    def functionals(self, grid: Grid) -> Functionals:
        nodes = int(np.prod(grid.shape))
        if self.index.ndim == 0:
            self.draw(grid, 0, 0)
        elif not self.index.size or self.index.min() < 0 or self.index.max() >= nodes:
            raise InputError(f"observed nodes {self.index.tolist()!s:.60}; accepted: flat indices from 0 to {nodes - 1}")
        elif not grid.nodes.flatten()[self.index].all():
            raise InputError("observed nodes: some are outside the domain")
        elif any(len(set(row)) < len(row) for row in np.atleast_2d(self.index).tolist()):
            raise InputError("observed nodes: some are given twice; accepted: different ones")
        return Functionals(torch.arange(nodes)[:, None], None, nodes)

    def draw(self, grid: Grid, seed: int, *field: int) -> NDArray[np.int64]:
        if self.index.ndim == 0:
            return draw_nodes(grid, int(self.index), seed, *(() if self.shared else field), boundary=self.boundary)
        if self.index.ndim == 1:
            return self.index
        if field[0] >= len(self.index):
            raise InputError(f"observed nodes of {len(self.index)} fields; accepted: [n, m] with a row for every field")
        return self.index[field[0]]
