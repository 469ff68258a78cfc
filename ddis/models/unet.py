"""azula's U-Net, conditioned on the noise level as the backbone of a prior."""

from collections.abc import Sequence

import torch
from azula.nn.unet import UNet
from torch import Tensor, nn

from ddis.grid import Grid
from ddis.models.layers import Attention, NoiseEmbedding
from ddis.models.levels import GROUPS


class ModulatedUNet(nn.Module):
    """The U-Net with group normalisation, conditioned on the noise level; circular padding on a periodic grid.

    attention: levels that end with it, on the way down and on the way up.
    """

    def __init__(
        self,
        fields: int,
        grid: Grid,
        channels: Sequence[int],
        blocks: Sequence[int],
        embedding: int,
        dropout: float,
        attention: Sequence[int] = (),
    ):
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
        for level in attention:
            self.net.descent[level].append(Attention(channels[level]))
            up = self.net.ascent[-1 - level]
            up.insert(len(up) - 1, Attention(channels[level]))  # before the layer that leaves the level

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        layout = torch.channels_last if x.ndim == 4 else torch.contiguous_format
        return self.net(x.contiguous(memory_format=layout), self.embedding(c_noise)).contiguous()
