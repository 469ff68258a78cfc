"""Settings of U-Nets, of priors and of operators: what a network has at each of its levels, and what that costs."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from ddis.refusals import SettingError

GROUPS = 16  # of channels that are normalised together, at most

Channels = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]
Blocks = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]


def check_levels(channels: Sequence[int], blocks: Sequence[int]) -> None:
    """Raises ValueError if the levels do not fit together, or a level's channels cannot be normalised."""
    if len(channels) != len(blocks):
        raise ValueError(f"{len(channels)} channels and {len(blocks)} blocks; accepted: one of each per level")
    wrong = [width for width in channels if width > GROUPS and width % GROUPS]
    if wrong:
        raise ValueError(f"channels {wrong}; accepted: up to {GROUPS}, or multiples of {GROUPS} (normalisation in groups)")


def groups_of(channels: int, least: int) -> int:
    """Groups that channels are normalised in: 16, 8, 4, 2 or 1, the most that are equal and have at least `least` each.

    A group of one channel loses its mean over the nodes, and so does the field: the network then cannot tell how large it is.
    """
    halved = (GROUPS >> times for times in range(GROUPS.bit_length()))
    return next((number for number in halved if channels % number == 0 and channels >= number * least), 1)


def unet_flops(channels: Sequence[int], blocks: Sequence[int], resolution: float) -> float:
    """Of one field of S x S nodes through a U-Net: two 3 x 3 convolutions per block, on the way down and up."""
    levels = enumerate(zip(channels, blocks, strict=True))
    return sum(4 * number * 18 * width**2 * (resolution / 2**level) ** 2 for level, (width, number) in levels)


def modes_of(modes: int, level: int) -> int:
    """Fourier modes per axis of a level, of half those of the one before."""
    return max(2, modes >> level)


def check_modes(modes: int, resolution: int) -> None:
    """Raises SettingError if a grid of so many nodes per side does not carry all modes: the others are never trained."""
    if modes > resolution:
        raise SettingError(f"modes {modes}: {resolution} nodes do not carry them all; accepted: up to {resolution}")


Widths = list[list[tuple[int, int]]]


def block_widths(channels: Sequence[int], blocks: Sequence[int]) -> tuple[Widths, Widths]:
    """Channels (before, after) of the blocks of each level, on the way down and up, of a network with a shortcut for each block.

    On the way down the first block of a coarser level halves the grid. On the way up the first of a finer one doubles it; each of
    the others also takes what a block on the way down gave, so that there is one more.
    """
    kept, last = [channels[0]], len(channels) - 1
    down: Widths = []
    up: Widths = []
    for level, (width, number) in enumerate(zip(channels, blocks, strict=True)):
        stage = [(kept[-1], kept[-1])] if level else []
        stage += [(kept[-1] if place == 0 else width, width) for place in range(number)]
        kept += [after for _, after in stage]
        down.append(stage)
    width = channels[-1]
    for level in reversed(range(len(channels))):
        stage = [(width, width)] if level < last else []
        for _ in range(blocks[level] + 1):
            stage.append((width + kept.pop(), channels[level]))
            width = channels[level]
        up.insert(0, stage)
    return down, up
