"""The U-shaped neural operator: residual blocks of spectral convolutions on ever coarser grids and back.

Source: Yao et al., FunDPS, arXiv 2505.17004, whose network is the U-Net DDPM++ (EDM, arXiv 2206.00364) with spectral convolutions
for those of 3 x 3; Rahman et al., U-NO, arXiv 2204.11127; neuraloperator's layers. Weights belong to Fourier modes: they serve
any number of nodes, those of modes that a grid does not have aside.
"""

import math
from typing import TYPE_CHECKING

from pydantic import Field

from ddis.models.backbones.levels import Levels
from ddis.models.levels import block_widths, check_modes, modes_of

if TYPE_CHECKING:
    from torch import nn

    from ddis.grid import Grid


class UNOBackbone(Levels):
    """Levels as of a U-Net.

    modes  Fourier modes per axis on the finest grid; every level has half those of the one before
    rank   share of the numbers of a spectral weight that its Tucker decomposition keeps; 1: no decomposition
    """

    name: str = "uno"
    modes: int = Field(16, ge=4)
    rank: float = Field(1.0, gt=0, le=1)

    def build(self, channels: int, grid: "Grid") -> "nn.Module":
        from ddis.models.uno import ModulatedUNO

        size = self.channels, self.blocks, self.modes, self.rank, self.attention, self.embedding, self.dropout, self.group
        return ModulatedUNO(channels, grid, *size)

    def check_finer(self, resolution: int) -> None:
        check_modes(self.modes, resolution)

    def flops(self, resolution: int) -> float:
        """Of the transforms, the products by mode, and the products of channels at every node."""
        total, share = 0.0, self.rank**0.25  # of each axis of a weight
        down, up = block_widths(self.channels, self.blocks)
        turn = [(self.channels[-1],) * 2] * 2
        for level, widths in [*enumerate(down), *enumerate(up), (len(down) - 1, turn)]:
            nodes, modes = math.ceil(resolution / 2**level), modes_of(self.modes, level)
            columns = modes // 2 + 1
            for before, after in widths:
                transforms = (before + 3 * after) * (4 * nodes**2 * columns + 8 * nodes * modes * columns)
                products = 8 * modes * columns * (before + after) * after * share**2
                total += transforms + products + 2 * nodes**2 * before * after * (before != after)
        return total

    @property
    def finest(self) -> int:
        return 2 * self.channels[0]
