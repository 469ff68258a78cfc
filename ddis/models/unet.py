"""azula's U-Net, conditioned on the noise level as the backbone of a prior."""

from collections.abc import Iterable, Sequence

import torch
from azula.nn.unet import UNet, UNetBlock
from torch import Tensor, nn

from ddis.grid import Grid
from ddis.models.layers import Attention, NoiseEmbedding, group_norm
from ddis.models.wrapped import wrap, wrapped


def upsampled_conv(fine: Tensor, coarse: Tensor, conv: nn.Conv2d, wraps: bool) -> Tensor:
    """`conv` (3 x 3) of channels `fine` [B, C, H, W] and `coarse` [B, C', H/2, W/2], each value of it four times.

    A value that stands at 2 x 2 nodes meets sums of the kernel's entries. So it is a transposed convolution of stride 2, with the
    kernel's sums over 2 x 2 windows, of which there are 4 x 4: with 4/9 of the products.

    wraps: whether the padding is circular; else it is of zeros.
    """
    padding = 1
    if wraps:
        fine, coarse, padding = wrapped(fine), wrapped(coarse), 0
    here, there = conv.weight.split([fine.shape[1], coarse.shape[1]], dim=1)
    window = nn.functional.avg_pool2d(nn.functional.pad(there.flip(2, 3), (1, 1, 1, 1)), 2, stride=1, divisor_override=1)
    kernel = window.transpose(0, 1).contiguous(memory_format=torch.channels_last)
    near = nn.functional.conv2d(fine, here, conv.bias, padding=padding)
    return near + nn.functional.conv_transpose2d(coarse, kernel, stride=2, padding=3 - 2 * padding)


class QuickUNet(UNet):
    """azula's U-Net, of stride 2 and kernels of 3 x 3; on a CPU the convolution after each upsampling is an `upsampled_conv`."""

    wraps = False

    def wrap(self) -> None:
        """Makes its convolutions with circular padding quick (`ddis.models.wrapped`)."""
        self.wraps = True
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                wrap(module)

    def forward(self, x: Tensor, mod: Tensor | None = None, cond: None = None) -> Tensor:
        merging = [blocks[0] for blocks in list(self.ascent)[1:]]
        if x.ndim != 4 or x.device.type != "cpu" or any(size % 2 ** len(merging) for size in x.shape[2:]):
            return super().forward(x, mod, cond)
        skipped: list[Tensor] = []
        for level, blocks in enumerate(self.descent):
            skipped += [x] if level else []
            x = _through(blocks, x, mod)
        for level, blocks in enumerate(self.ascent):
            if level:
                x = upsampled_conv(skipped.pop(), x, merging[level - 1], self.wraps)
            x = _through(blocks[int(level > 0) : -1 if skipped else None], x, mod)
        return x


def _through(blocks: Iterable[nn.Module], x: Tensor, mod: Tensor | None) -> Tensor:
    for block in blocks:
        x = block(x, mod) if isinstance(block, UNetBlock) else block(x)
    return x


class ModulatedUNet(nn.Module):
    """The U-Net with group normalisation, conditioned on the noise level; circular padding on a periodic grid.

    group: channels that are normalised together, at least.
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
        group: int,
        attention: Sequence[int] = (),
    ):
        super().__init__()
        self.embedding = NoiseEmbedding(embedding)
        self.net = QuickUNet(
            fields,
            fields,
            hid_channels=channels,
            hid_blocks=blocks,
            mod_features=embedding,
            norm="group",
            spatial=len(grid.shape),
            periodic=all(grid.periodic),
            dropout=dropout or None,
        )
        for block in self.net.modules():
            if isinstance(block, UNetBlock):
                block.norm = group_norm(block.norm.num_channels, group, affine=False)
        if all(grid.periodic) and len(grid.shape) == 2:
            self.net.wrap()
        for level in attention:
            self.net.descent[level].append(Attention(channels[level], group))
            up = self.net.ascent[-1 - level]
            up.insert(len(up) - 1, Attention(channels[level], group))  # before the layer that leaves the level

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        layout = torch.channels_last if x.ndim == 4 else torch.contiguous_format
        return self.net(x.contiguous(memory_format=layout), self.embedding(c_noise)).contiguous()
