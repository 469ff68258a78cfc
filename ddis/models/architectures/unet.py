"""The U-Net operator: convolutions on ever coarser grids and back.

Source: Ronneberger et al., U-Net: Convolutional Networks for Biomedical Image Segmentation, arXiv 1505.04597; azula's code. A
convolution sees a number of nodes, whatever their distance: weights serve the resolution that they were trained on.
"""

from typing import TYPE_CHECKING, Self

from pydantic import model_validator

from ddis.models.architectures.base import Architecture
from ddis.models.levels import GROUPS, Blocks, Channels, check_levels, unet_flops

if TYPE_CHECKING:
    from torch import nn

    from ddis.grid import Space


class UNetOperator(Architecture):
    """Size of a U-Net.

    channels  width at each level, from the finest
    blocks    residual blocks at each level, on the way down and again on the way up
    """

    architecture: str = "unet"
    channels: Channels = (16, 32, 64)
    blocks: Blocks = (1, 1, 1)

    @model_validator(mode="after")
    def _levels(self) -> Self:
        check_levels(self.channels, self.blocks)
        return self

    def build(self, coefficient: "Space", solution: "Space") -> "nn.Module":
        from azula.nn.unet import UNet

        network: nn.Module = UNet(
            coefficient.channels,
            solution.channels,
            hid_channels=self.channels,
            hid_blocks=self.blocks,
            norm="group",
            groups=GROUPS,
            spatial=len(solution.grid.shape),
            periodic=all(solution.grid.periodic),
        )
        return network

    def flops(self, resolution: int) -> float:
        return unet_flops(self.channels, self.blocks, (1 + 2 * self.padding) * resolution)

    @property
    def finest(self) -> int:
        return self.channels[0]
