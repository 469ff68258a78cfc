"""Settings of a training, as written in the configuration."""

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from ddis.refusals import SettingError

if TYPE_CHECKING:
    from ddis.grid import Grid
    from ddis.pde.base import Problem


class TrainingSettings(BaseModel):
    """Length and speed of a training.

    steps            optimiser steps
    batch            fields per step
    learning_rate    peak rate of Adam
    warmup           steps of linear warm-up
    schedule         after the warm-up: constant, or cosine down to 1 %
    ema_half_life    half-life of the weights' moving average, in fields
    validate_every   steps between validations; the average with the smallest validation loss is kept
    clip             largest gradient norm, or null
    precision        of the network's arithmetic: float32, or bfloat16 where torch's autocast uses it; weights stay float32
    compile          torch.compile: quicker steps after a minute of compilation; needs a C++ compiler
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    steps: int = Field(1000, ge=1)
    batch: int = Field(32, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    warmup: int = Field(50, ge=0)
    schedule: Literal["constant", "cosine"] = "cosine"
    ema_half_life: float = Field(2000, gt=0)
    validate_every: int = Field(100, ge=1)
    clip: float | None = Field(1.0, gt=0)
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False


class PhysicsSettings(BaseModel):
    """Weights of what the equation says of predicted solutions (ddis.training.physics).

    pde       of the relative residual
    boundary  of the norm at the boundary, in units of the solution
    unpaired  whether both are also taken on as many coefficients again, drawn from all of the training split
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    pde: float = Field(0.0, ge=0)
    boundary: float = Field(0.0, ge=0)
    unpaired: bool = True

    def check(self, problem: "Problem", grid: "Grid") -> None:
        """Raises SettingError if the problem, whose solutions are on `grid`, does not have these terms."""
        if self.pde and not problem.local_residual:
            raise SettingError(
                f"pde: {self.pde:g}; its equation holds along a path of which only the ends are stored, so that the residual is "
                "u - G(a), which is a pair; accepted: 0"
            )
        if self.boundary and not grid.sides:
            raise SettingError(f"boundary: {self.boundary:g}; its domain has no boundary; accepted: 0")
