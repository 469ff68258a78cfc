"""Settings of backbones that have levels of ever coarser grids."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from ddis.models.backbones.base import Backbone
from ddis.models.levels import Blocks, Channels, check_levels


class Levels(Backbone):
    """Size of a network with levels.

    channels   width at each level, from the finest
    blocks     residual blocks at each level, on the way down and again on the way up
    embedding  features of the noise level
    attention  levels with self-attention over all of their nodes; 0 is the finest
    group      channels that are normalised together, at least (`ddis.models.levels.groups_of`)
    """

    channels: Channels = (16, 32, 64)
    blocks: Blocks = (1, 1, 1)
    embedding: int = Field(64, ge=8)
    dropout: float = Field(0.0, ge=0, lt=1)
    attention: tuple[Annotated[int, Field(ge=0)], ...] = ()
    group: int = Field(4, ge=1)

    @property
    def versions(self) -> tuple[str, ...]:
        return ("groups",) if self.group > 1 else ()

    @model_validator(mode="after")
    def _levels(self) -> Self:
        check_levels(self.channels, self.blocks)
        levels = range(len(self.channels))
        if len(set(self.attention)) < len(self.attention) or not set(self.attention) <= set(levels):
            raise ValueError(f"attention {list(self.attention)}; accepted: levels, 0 to {levels[-1]}, each once")
        return self
