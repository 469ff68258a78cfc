"""The Fourier neural operator: layers that multiply the low Fourier modes of all channels by a matrix each.

Source: Li et al., Fourier Neural Operator for Parametric Partial Differential Equations, arXiv 2010.08895; neuraloperator's code.
"""

import math
from typing import TYPE_CHECKING

from pydantic import Field

from ddis.models.architectures.base import Architecture
from ddis.models.levels import check_modes

if TYPE_CHECKING:
    from torch import nn

    from ddis.grid import Space


class FNO(Architecture):
    """modes: Fourier modes per axis. width: hidden channels. layers: Fourier layers."""

    architecture: str = "fno"
    modes: int = Field(16, ge=2)
    width: int = Field(24, ge=2)
    layers: int = Field(4, ge=1)
    padding: float = Field(0.125, ge=0, lt=1)

    def build(self, coefficient: "Space", solution: "Space") -> "nn.Module":
        from ddis.models.fourier import fno

        axes = len(solution.grid.shape)
        return fno(coefficient.channels, solution.channels, axes, self.modes, self.width, self.layers)

    def check_finer(self, resolution: int) -> None:
        check_modes(self.modes, resolution)

    def flops(self, resolution: int) -> float:
        """Per layer the transforms, the product of the modes, and three products of channels."""
        nodes = ((1 + 2 * self.padding) * resolution) ** 2
        transforms = 2 * self.width * 5 * nodes * math.log2(nodes)
        modes = 8 * self.modes**2 * self.width**2
        return self.layers * (transforms + modes + 3 * 2 * nodes * self.width**2)

    @property
    def finest(self) -> int:
        return self.width
