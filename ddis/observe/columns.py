"""All nodes of some columns: vertical boreholes through the solution, or one sensor at all times."""

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field

from ddis.arrays import whole_numbers
from ddis.errors import InputError
from ddis.grid import Grid
from ddis.lazy import torch
from ddis.observe.base import Functionals, Sensors, SensorSettings


class ColumnsSettings(SensorSettings):
    """at: indices along `axis` (0: the first), at which all nodes are observed."""

    at: tuple[int, ...] = Field(min_length=1)
    axis: int = Field(0, ge=0, le=1)


class Columns(Sensors):
    """at: indices along the axis; f[at] of an array f, or f[:, at] for axis 1."""

    Settings = ColumnsSettings

    def __init__(self, at: ArrayLike, noise: ArrayLike = 0.0, assumed_noise: ArrayLike | None = None, axis: int = 0):
        super().__init__(noise, assumed_noise)
        self.at, self.axis = np.atleast_1d(whole_numbers("at", at)), axis

    @classmethod
    def of_settings(cls, settings: ColumnsSettings) -> "Columns":
        return cls(settings.at, settings.noise, settings.assumed_noise, settings.axis)

    def functionals(self, grid: Grid) -> Functionals:
        axes = len(grid.shape)
        if self.axis not in range(-axes, axes):
            raise InputError(f"axis {self.axis} of columns on {grid} nodes; accepted: 0{' or 1' * (axes > 1)}")
        size = grid.shape[self.axis]
        if not self.at.size or self.at.min() < 0 or self.at.max() >= size or len(set(self.at.tolist())) < len(self.at):
            raise InputError(f"at {self.at.tolist()} of axis {self.axis}; accepted: different indices from 0 to {size - 1}")
        nodes = np.arange(np.prod(grid.shape)).reshape(grid.shape)
        index = np.take(nodes, self.at, axis=self.axis).flatten()
        return Functionals(torch.from_numpy(index[grid.nodes.flatten()[index]])[:, None], None, nodes.size)
