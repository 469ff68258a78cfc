"""Sizes of the networks, as written in the configuration."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

GROUPS = 16


class BackboneSettings(BaseModel):
    """Size of a backbone.

    channels  width at each level, from the finest
    blocks    residual blocks at each level, on the way down and again on the way up
    embedding features of the noise level
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: Literal["unet"] = "unet"
    channels: tuple[Annotated[int, Field(ge=1)], ...] = Field((16, 32, 64), min_length=1)
    blocks: tuple[Annotated[int, Field(ge=1)], ...] = Field((1, 1, 1), min_length=1)
    embedding: int = Field(64, ge=8)
    dropout: float = Field(0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _levels(self) -> "BackboneSettings":
        if len(self.channels) != len(self.blocks):
            raise ValueError(f"{len(self.channels)} channels and {len(self.blocks)} blocks; accepted: one of each per level")
        wrong = [width for width in self.channels if width > GROUPS and width % GROUPS]
        if wrong:
            raise ValueError(f"channels {wrong}; accepted: up to {GROUPS}, or multiples of {GROUPS} (normalisation in groups)")
        return self


class OperatorSettings(BaseModel):
    """Size of the FNO.

    modes    Fourier modes per axis
    width    hidden channels
    layers   Fourier layers
    padding  reflected nodes on each side, as a share of the side (0 on periodic domains, whatever is set)
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    modes: int = Field(16, ge=2)
    width: int = Field(24, ge=2)
    layers: int = Field(4, ge=1)
    padding: float = Field(0.125, ge=0, lt=1)
