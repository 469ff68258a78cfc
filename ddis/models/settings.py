"""Sizes of the networks, as written in the configuration."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class BackboneSettings(BaseModel):
    """Size of a backbone.

    channels  width at each level, from the finest
    blocks    residual blocks at each level, on the way down and again on the way up
    embedding features of the noise level
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: Literal["unet"] = "unet"
    channels: tuple[int, ...] = (16, 32, 64)
    blocks: tuple[int, ...] = (1, 1, 1)
    embedding: int = Field(64, ge=8)
    dropout: float = Field(0.0, ge=0, lt=1)


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
