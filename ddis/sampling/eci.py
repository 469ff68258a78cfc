"""`eci`: extrapolation, correction and interpolation of a flow prior of (coefficient, solution). No gradients.

Source: Cheng et al., Gradient-Free Generation for Hard-Constrained Systems, arXiv 2412.01786, algorithm 1. From noise at t = 0 in
N steps to t = 1; at each t, `mix` times:

    x_1 = x_t + (1 - t) v(x_t, t)               extrapolation along the velocity to the end
    x_1 <- x_1 + Aᵀ (A Aᵀ)⁻¹ (y - A x_1)        correction: the closest field with the observed values
    x_t' = t' x_1 + (1 - t') n                  interpolation, n drawn anew at every r-th; t' = t, and the last time the next t

A holds the observed functionals in its rows. For values at nodes the correction sets them and moves nothing else, as published.
Observed values are taken as they are, noise and all: samples have no misfit in their own solution channel.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from ddis.lazy import torch
from ddis.sampling.base import Batch, Evaluations, Method, RunSettings, Size, State

if TYPE_CHECKING:
    from torch import Tensor

Count = Annotated[int, Field(ge=1)]


class ECISettings(RunSettings):
    """steps: N; mix: corrections at each t, one number or by problem; resample: r, noise is drawn anew at every r-th of them."""

    steps: int = Field(200, ge=1)
    mix: Count | dict[str, Count] = 1
    resample: int = Field(1, ge=1)


class ECI(Method[ECISettings]):
    Settings = ECISettings
    prior = "flow"
    sets_values = True

    def cost(self, size: Size) -> Evaluations:
        return Evaluations(prior=self.settings.steps * self._mix)

    @property
    def _mix(self) -> int:
        """Of the case, which `RunSettings.for_case` has chosen."""
        assert isinstance(self.settings.mix, int)
        return self.settings.mix

    def sample(self, batch: Batch, prepared: None) -> Iterator[State]:
        assert batch.prior is not None
        steps, projection, count = self.settings.steps, Projection.of(batch), 0
        x = noise = batch.draw_noise(batch.joint_channels)
        for step in range(steps):
            t = step / steps
            for mixed in range(1, self._mix + 1):
                with torch.no_grad():
                    end = projection(x + (1 - t) * batch.prior(x, x.new_full((len(x),), t)))
                count += 1
                if count % self.settings.resample == 0:
                    noise = batch.draw_noise(batch.joint_channels)
                following = t if mixed < self._mix else (step + 1) / steps
                x = following * end + (1 - following) * noise
            yield State(step + 1, steps, 1 - t, batch.free(end))


@dataclass(frozen=True)
class Projection:
    """The closest fields [B, C, *nodes] to given ones that have the observed values; all normalised, float64 inside.

    places, weights  [n, m, q] of the observed functionals, in a field [C P] flattened
    values           [n, m]; inverse: pseudo-inverse of A Aᵀ [n, m, m]
    """

    places: Tensor
    weights: Tensor
    values: Tensor
    inverse: Tensor

    @classmethod
    def of(cls, batch: Batch) -> Projection:
        observed, (coefficient, solution) = batch.observation, (math.prod(space.shape) for space in batch.spaces)
        places = (observed.functionals.index[observed.index] + coefficient) % (coefficient + solution)  # it comes first here
        weights, inverses = observed.functionals.weights_of(observed.index), []
        for place, weight in zip(places, weights, strict=True):
            rows = weight.new_zeros(len(place), coefficient + solution).scatter_add(1, place, weight)
            inverses.append(torch.linalg.pinv(rows @ rows.T, hermitian=True))
        return cls(places, weights, observed.values, torch.stack(inverses))

    def __call__(self, x: Tensor) -> Tensor:
        n, m, q = self.places.shape
        fields, weights = x.double().reshape(n, len(x) // n, -1), self.weights[:, None]
        places = self.places.flatten(1)[:, None].expand(-1, fields.shape[1], -1)
        seen = (fields.gather(2, places).unflatten(2, (m, q)) * weights).sum(dim=-1)
        z = (self.values[:, None] - seen) @ self.inverse
        return fields.scatter_add(2, places, (z[..., None] * weights).flatten(2)).reshape(x.shape).to(x)
