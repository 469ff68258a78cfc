"""The U-Net, conditioned on the noise level by modulating every block.

Source: Ho et al., Denoising Diffusion Probabilistic Models, arXiv 2006.11239; azula's code.
"""

from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator

from ddis.models.backbones.base import Backbone
from ddis.models.levels import Blocks, Channels, check_levels, unet_flops

if TYPE_CHECKING:
    from torch import nn

    from ddis.grid import Grid


class UNet(Backbone):
    """Size of a U-Net.

    channels  width at each level, from the finest
    blocks    residual blocks at each level, on the way down and again on the way up
    embedding features of the noise level
    """

    name: str = "unet"
    channels: Channels = (16, 32, 64)
    blocks: Blocks = (1, 1, 1)
    embedding: int = Field(64, ge=8)
    dropout: float = Field(0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _levels(self) -> Self:
        check_levels(self.channels, self.blocks)
        return self

    def build(self, channels: int, grid: "Grid") -> "nn.Module":
        import torch

        from ddis.models.unet import ModulatedUNet

        network: nn.Module = ModulatedUNet(channels, grid, self.channels, self.blocks, self.embedding, self.dropout)
        return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def flops(self, resolution: int) -> float:
        return unet_flops(self.channels, self.blocks, resolution)

    @property
    def finest(self) -> int:
        return self.channels[0]
