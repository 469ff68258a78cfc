"""azula's U-Net, conditioned on the noise level as the backbone of a prior."""

import math
from collections.abc import Sequence

import torch
from azula.nn.unet import UNet
from torch import Tensor, nn

from ddis.grid import Grid
from ddis.models.levels import GROUPS


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


class ModulatedUNet(nn.Module):
    """The U-Net with group normalisation, conditioned on the noise level; circular padding on a periodic grid."""

    def __init__(self, fields: int, grid: Grid, channels: Sequence[int], blocks: Sequence[int], embedding: int, dropout: float):
        super().__init__()
        self.embedding = NoiseEmbedding(embedding)
        self.net = UNet(
            fields,
            fields,
            hid_channels=channels,
            hid_blocks=blocks,
            mod_features=embedding,
            norm="group",
            groups=GROUPS,
            spatial=len(grid.shape),
            periodic=all(grid.periodic),
            dropout=dropout or None,
        )

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        layout = torch.channels_last if x.ndim == 4 else torch.contiguous_format
        return self.net(x.contiguous(memory_format=layout), self.embedding(c_noise)).contiguous()
