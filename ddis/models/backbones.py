"""Backbones F(x, c_noise) of the denoiser. To add one: a function (channels, grid, settings) -> nn.Module, and its line."""

import math

import torch
from torch import Tensor, nn

from ddis.grid import Grid
from ddis.models.settings import GROUPS, BackboneSettings


class NoiseEmbedding(nn.Module):
    """Features [B, D] of c_noise [B]: sines and cosines of geometrically spaced frequencies, then two linear layers."""

    frequencies: Tensor

    def __init__(self, features: int):
        super().__init__()
        half = features // 2
        self.register_buffer("frequencies", torch.exp(torch.linspace(0, math.log(64.0), half)), persistent=False)
        self.layers = nn.Sequential(nn.Linear(2 * half, features), nn.SiLU(), nn.Linear(features, features))

    def forward(self, c_noise: Tensor) -> Tensor:
        phase = c_noise.float()[:, None] * self.frequencies
        return self.layers(torch.cat([phase.sin(), phase.cos()], dim=1))


class UNet(nn.Module):
    """azula's modulated U-Net with group normalisation, conditioned on the noise level; circular padding on a periodic grid."""

    def __init__(self, channels: int, grid: Grid, settings: BackboneSettings):
        super().__init__()
        from azula.nn.unet import UNet as ModulatedUNet

        self.embedding = NoiseEmbedding(settings.embedding)
        self.net = ModulatedUNet(
            channels,
            channels,
            hid_channels=settings.channels,
            hid_blocks=settings.blocks,
            mod_features=settings.embedding,
            norm="group",
            groups=GROUPS,
            spatial=len(grid.shape),
            periodic=all(grid.periodic),
            dropout=settings.dropout or None,
        )

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        layout = torch.channels_last if x.ndim == 4 else torch.contiguous_format
        return self.net(x.contiguous(memory_format=layout), self.embedding(c_noise)).contiguous()


BACKBONES = {"unet": UNet}


def make_backbone(channels: int, grid: Grid, settings: BackboneSettings) -> nn.Module:
    """The backbone of `channels` fields on a grid, in and out."""
    backbone: nn.Module = BACKBONES[settings.name](channels, grid, settings)
    return backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
