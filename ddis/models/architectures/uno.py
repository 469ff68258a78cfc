"""The U-shaped neural operator: Fourier layers on ever coarser grids and back, with more channels the coarser they are.

Source: Rahman et al., U-NO: U-shaped Neural Operators, arXiv 2204.11127; neuraloperator's code, but
for its spectral convolutions onto other grids, which put negative frequencies in wrong places.
"""

import math
from typing import TYPE_CHECKING

from pydantic import Field

from ddis.models.architectures.base import Architecture
from ddis.models.levels import check_modes

if TYPE_CHECKING:
    from torch import nn

    from ddis.grid import Space


class UNO(Architecture):
    """modes: Fourier modes per axis on the finest grid. width: channels there. levels: how often the grid is halved.

    Every halving has half the modes and twice the channels.
    """

    architecture: str = "uno"
    modes: int = Field(16, ge=4)
    width: int = Field(12, ge=2)
    levels: int = Field(2, ge=1, le=6)
    padding: float = Field(0.125, ge=0, lt=1)

    @property
    def _layers(self) -> list[tuple[int, int, float]]:
        """Channels, modes and scaling of each layer: down, on the coarsest grid, and up."""
        level = range(1, self.levels + 1)
        down = [(self.width * 2**n, max(2, self.modes >> n), 0.5) for n in level]
        up = [(self.width * 2 ** (n - 1), max(2, self.modes >> n), 2.0) for n in reversed(level)]
        return [*down, (*down[-1][:2], 1.0), *up]

    def build(self, coefficient: "Space", solution: "Space") -> "nn.Module":
        from ddis.models.fourier import uno

        return uno(coefficient.channels, solution.channels, len(solution.grid.shape), self.width, self._layers)

    def check_finer(self, resolution: int) -> None:
        check_modes(self.modes, resolution)

    def flops(self, resolution: int) -> float:
        """Per layer the transforms, the product of the modes, and three products of channels."""
        total, nodes, before = 0.0, ((1 + 2 * self.padding) * resolution) ** 2, self.width
        for width, modes, scale in self._layers:
            transforms = (before + width) * 5 * nodes * math.log2(max(2, nodes))
            total += transforms + 8 * modes**2 * before * width + 3 * 2 * nodes * before * width
            nodes, before = nodes * scale**2, 2 * width  # a layer on the way up also has the channels of the way down
        return total

    @property
    def finest(self) -> int:
        return 2 * self.width
