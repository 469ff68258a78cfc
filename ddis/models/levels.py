"""Settings of U-Nets, of priors and of operators: what a network has at each of its levels, and what that costs."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

GROUPS = 16  # of channels that are normalised together

Channels = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]
Blocks = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]


def check_levels(channels: Sequence[int], blocks: Sequence[int]) -> None:
    """Raises ValueError if the levels do not fit together, or a level's channels cannot be normalised."""
    if len(channels) != len(blocks):
        raise ValueError(f"{len(channels)} channels and {len(blocks)} blocks; accepted: one of each per level")
    wrong = [width for width in channels if width > GROUPS and width % GROUPS]
    if wrong:
        raise ValueError(f"channels {wrong}; accepted: up to {GROUPS}, or multiples of {GROUPS} (normalisation in groups)")


def unet_flops(channels: Sequence[int], blocks: Sequence[int], resolution: float) -> float:
    """Of one field of S x S nodes through a U-Net: two 3 x 3 convolutions per block, on the way down and up."""
    levels = enumerate(zip(channels, blocks, strict=True))
    return sum(4 * number * 18 * width**2 * (resolution / 2**level) ** 2 for level, (width, number) in levels)
