"""The U-Net, conditioned on the noise level by modulating every block.

Source: Ho et al., Denoising Diffusion Probabilistic Models, arXiv 2006.11239; azula's code.
"""

from typing import TYPE_CHECKING

from ddis.models.backbones.levels import Levels
from ddis.models.levels import unet_flops

if TYPE_CHECKING:
    from torch import nn

    from ddis.grid import Grid


class UNet(Levels):
    """Size of a U-Net: what all backbones with levels have."""

    name: str = "unet"

    def build(self, channels: int, grid: "Grid") -> "nn.Module":
        import torch

        from ddis.models.unet import ModulatedUNet

        size = self.channels, self.blocks, self.embedding, self.dropout, self.group, self.attention
        network: nn.Module = ModulatedUNet(channels, grid, *size)
        return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def flops(self, resolution: int) -> float:
        return unet_flops(self.channels, self.blocks, resolution)

    @property
    def finest(self) -> int:
        return self.channels[0]
