"""Coordinates along periodic axes, for networks of fields whose distribution has a place there, such as that of a forcing.

A convolution with circular padding commutes with shifts, and so does a network of such; as channels of its input sin 2πx and
cos 2πx tell it where a node is. On bounded axes the U-Net's zero padding does that, and coordinates that `uno` has of its own.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ddis.grid import Grid
from ddis.models.backbones import Backbone


class WithCoordinates(nn.Module):
    """A backbone of fields [B, C, *nodes] that is given sin and cos of 2π i / S along each periodic axis as further channels.

    It makes as many channels as it takes; those of the coordinates are left out.
    """

    def __init__(self, backbone: Backbone, channels: int, grid: Grid):
        super().__init__()
        self.axes = [axis for axis, wraps in enumerate(grid.periodic) if wraps]
        self.net = backbone.build(channels + 2 * len(self.axes), grid)

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        out: Tensor = self.net(torch.cat([x, *self.coordinates(x)], dim=1), c_noise)
        return out[:, : x.shape[1]]

    def coordinates(self, x: Tensor) -> Iterator[Tensor]:
        """[B, 1, *nodes] each."""
        for axis in self.axes:
            size = x.shape[2 + axis]
            angle = 2 * torch.pi / size * torch.arange(size, dtype=x.dtype, device=x.device)
            for line in (angle.sin(), angle.cos()):
                yield line.reshape(-1, *(1,) * (x.ndim - 3 - axis)).expand(len(x), 1, *x.shape[2:])
