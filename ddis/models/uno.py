"""The U-shaped neural operator, conditioned on the noise level as the backbone of a prior.

Residual blocks on ever coarser grids and back, as in the U-Net DDPM++ of EDM (arXiv 2206.00364), but each convolution is a
spectral one. Every block on the way down hands its output over to one on the way up.
"""

import math
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool1d, avg_pool2d, interpolate, silu

from ddis.grid import Grid
from ddis.models.fourier import spectral_conv
from ddis.models.layers import Attention, Channels, NoiseEmbedding, group_norm
from ddis.models.levels import block_widths, modes_of


def halved(x: Tensor) -> Tensor:
    """Means of pairs of nodes along each axis; an odd one at the end stands alone."""
    return avg_pool1d(x, 2, ceil_mode=True) if x.ndim == 3 else avg_pool2d(x, 2, ceil_mode=True)


def doubled(x: Tensor, nodes: Sequence[int]) -> Tensor:
    """Every node twice along each axis, up to `nodes`."""
    x = interpolate(x, scale_factor=2.0, mode="nearest")
    for axis, size in enumerate(nodes):
        x = x.narrow(2 + axis, 0, size)
    return x


class Block(nn.Module):
    """x <- (skip(x) + conv(silu(norm(conv(silu(norm(x))) + noise level)))) / sqrt(2), and attention if there is any.

    The first convolution and the skip may lead onto other nodes.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        modes: Sequence[int],
        attention: bool = False,
        *,
        embedding: int,
        rank: float,
        dropout: float,
        group: int,
    ):
        super().__init__()
        self.first_norm, self.second_norm = group_norm(inputs, group), group_norm(outputs, group)
        self.first, self.second = (spectral_conv(width, outputs, modes, rank) for width in (inputs, outputs))
        self.level = nn.Linear(embedding, outputs)
        self.dropout = nn.Dropout(dropout)
        self.skip = nn.Identity() if inputs == outputs else Channels(inputs, outputs)
        self.attention = Attention(outputs, group) if attention else nn.Identity()

    def forward(self, x: Tensor, level: Tensor, nodes: Sequence[int]) -> Tensor:
        y = self.first(silu(self.first_norm(x)), nodes)
        y = silu(self.second_norm(y + self.level(level)[(..., *(None,) * (x.ndim - 2))]))
        y = self.second(self.dropout(y))
        if nodes != x.shape[2:]:
            x = halved(x) if nodes[0] < x.shape[2] else doubled(x, nodes)
        out: Tensor = self.attention((self.skip(x) + y) * math.sqrt(0.5))
        return out


class ModulatedUNO(nn.Module):
    """Spectral blocks on ever coarser grids, each of half the nodes of the one before, and back.

    Coordinates along bounded axes are channels of the input, so that on periodic ones it commutes with shifts by a coarsest cell.

    Args:
        fields: channels of the fields; grid: theirs. Weights serve any number of nodes.
        channels, blocks: of each level, from the finest; on the way up one block more.
        modes: per axis on the finest grid; every level has half those of the one before.
        rank: see `ddis.models.fourier.spectral_conv`.
        attention: levels of which the blocks on the way down, and the last on the way up, end with it; if there are any, so does
            the first on the way back.
        embedding: features of the noise level.
        group: channels that are normalised together, at least.
    """

    def __init__(
        self,
        fields: int,
        grid: Grid,
        channels: Sequence[int],
        blocks: Sequence[int],
        modes: int,
        rank: float,
        attention: Sequence[int],
        embedding: int,
        dropout: float,
        group: int,
    ):
        super().__init__()
        self.bounded = [axis for axis, wraps in enumerate(grid.periodic) if not wraps]
        kept = [(modes_of(modes, level),) * len(grid.shape) for level in range(len(channels))]
        block = partial(Block, embedding=embedding, rank=rank, dropout=dropout, group=group)
        down, up = block_widths(channels, blocks)
        self.embedding = NoiseEmbedding(embedding)
        self.lift = Channels(fields + len(self.bounded), channels[0])
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for level, widths in enumerate(down):
            attends = [level in attention and (place > 0 or level == 0) for place in range(len(widths))]
            self.down.append(nn.ModuleList(block(*w, kept[level], a) for w, a in zip(widths, attends, strict=True)))
        self.turn = nn.ModuleList(block(channels[-1], channels[-1], kept[-1], a) for a in (len(attention) > 0, False))
        for level, widths in enumerate(up):
            attends = [level in attention and place == len(widths) - 1 for place in range(len(widths))]
            self.up.append(nn.ModuleList(block(*w, kept[level], a) for w, a in zip(widths, attends, strict=True)))
        self.norm, self.project = group_norm(channels[0], group), Channels(channels[0], fields)

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        level, last = silu(self.embedding(c_noise)), len(self.down) - 1
        sizes, x = [x.shape[2:]], self.lift(torch.cat([x, *self.coordinates(x)], dim=1))
        outputs = [x]
        for depth, stage in enumerate(self.down):
            if depth:
                sizes.append(torch.Size((size + 1) // 2 for size in sizes[-1]))
            for block in stage.children():
                x = block(x, level, sizes[-1])
                outputs.append(x)
        for block in self.turn:
            x = block(x, level, sizes[-1])
        for depth in reversed(range(len(self.up))):
            for place, block in enumerate(self.up[depth].children()):
                if place or depth == last:  # the first of the others comes from the coarser grid alone
                    x = torch.cat([x, outputs.pop()], dim=1)
                x = block(x, level, sizes[depth])
        out: Tensor = self.project(silu(self.norm(x)))
        return out

    def coordinates(self, x: Tensor) -> Iterator[Tensor]:
        """From 0 to 1 along each bounded axis, [B, 1, *nodes]."""
        for axis in self.bounded:
            line = torch.linspace(0, 1, x.shape[2 + axis], dtype=x.dtype, device=x.device)
            yield line.reshape(-1, *(1,) * (x.ndim - 3 - axis)).expand(len(x), 1, *x.shape[2:])
