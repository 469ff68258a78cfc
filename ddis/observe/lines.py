"""Points along straight lines through the solution, equally spaced, by (bi)linear interpolation."""

from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field

from ddis.arrays import numbers
from ddis.errors import InputError, whole_number
from ddis.observe.base import SensorSettings
from ddis.observe.points import Points


class LinesSettings(SensorSettings):
    """ends: of each line, [[[x, y], [x, y]], ...]; count: points on each, its ends included."""

    ends: tuple[tuple[tuple[float, ...], tuple[float, ...]], ...] = Field(min_length=1)
    count: int = Field(ge=2)


class Lines(Points):
    """ends: [lines, 2, axes]; count: points on each line, its ends included."""

    Settings: ClassVar[type[SensorSettings]] = LinesSettings

    def __init__(
        self,
        ends: ArrayLike,
        count: int,
        noise: ArrayLike = 0.0,
        assumed_noise: ArrayLike | None = None,
        between_nodes: bool = True,
    ):
        given, count = numbers("ends", ends), whole_number("count", count)
        if given.ndim != 3 or given.shape[1] != 2 or count < 2:
            raise InputError(
                f"lines of shape {given.shape} with {count} points; accepted: [lines, 2, axes], and 2 points or more"
            )
        share = np.linspace(0, 1, count)[:, None]
        points = given[:, :1] + share * (given[:, 1:] - given[:, :1])
        super().__init__(points.reshape(-1, given.shape[2]), noise, assumed_noise, between_nodes)

    @classmethod
    def of_settings(cls, settings: LinesSettings) -> "Lines":  # type: ignore[override]
        return cls(settings.ends, settings.count, settings.noise, settings.assumed_noise, between_nodes=False)
