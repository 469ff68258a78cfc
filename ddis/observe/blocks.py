"""Averages of the solution over equal blocks of nodes, such as the pixels of a coarse picture."""

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field

from ddis.errors import InputError, whole_number
from ddis.grid import Grid
from ddis.lazy import torch
from ddis.observe.base import Functionals, Sensors, SensorSettings


class BlocksSettings(SensorSettings):
    """count blocks along each axis."""

    count: int = Field(ge=1)


class Blocks(Sensors):
    """count: blocks along each axis, which divides the nodes of the axis."""

    Settings = BlocksSettings

    def __init__(self, count: int, noise: ArrayLike = 0.0, assumed_noise: ArrayLike | None = None):
        super().__init__(noise, assumed_noise)
        self.count = whole_number("count", count, 1)

    @classmethod
    def of_settings(cls, settings: BlocksSettings) -> "Blocks":
        return cls(settings.count, settings.noise, settings.assumed_noise)

    def functionals(self, grid: Grid) -> Functionals:
        if self.count < 1 or any(size % self.count for size in grid.shape):
            raise InputError(f"count {self.count} of blocks along each axis of {grid} nodes; accepted: a divisor")
        if not grid.nodes.all():
            raise InputError("blocks: accepted on domains without a mask")
        nodes = np.arange(np.prod(grid.shape)).reshape(grid.shape)
        split = [part for size in grid.shape for part in (self.count, size // self.count)]
        axes = [*range(0, len(split), 2), *range(1, len(split), 2)]
        index = torch.from_numpy(nodes.reshape(split).transpose(axes).reshape(self.count ** len(grid.shape), -1).copy())
        return Functionals(index, torch.full(index.shape, 1 / index.shape[1], dtype=torch.float64), nodes.size)
