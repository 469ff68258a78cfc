"""`fundps`: DPS on a joint prior of (coefficient, solution), guided by the observed nodes of the solution and the residual.

Source: FunDPS, arXiv 2505.17004. The published weights are for 128 x 128 and 500 observations.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ddis.sampling.base import Batch, Evaluations, Method, PerCase, Size, State, number
from ddis.sampling.dps import DPSSettings, guided_ode
from ddis.sampling.schedules import karras_schedule

if TYPE_CHECKING:
    from torch import Tensor


class FunDPSSettings(DPSSettings):
    """Those of DPS, and residual_weight: guidance by the equation, once σ <= 1; in the same loss, multiplied by σ too."""

    residual_weight: PerCase = 0.0


class FunDPS(Method[FunDPSSettings]):
    Settings = FunDPSSettings
    prior = "joint"
    tuned = "weight"

    def cost(self, size: Size) -> Evaluations:
        return Evaluations(prior=6 * self.settings.steps)

    def sample(self, batch: Batch, prepared: Any) -> Iterator[State]:
        s = self.settings
        weight, residual_weight = number(s.weight), number(s.residual_weight)

        def loss(x0_hat: Tensor, sigma: float) -> Tensor:
            value = min(1.0, sigma) * weight * s.reduce(batch.observation.misfit(batch.predict_joint(x0_hat)))
            if residual_weight and sigma <= 1:
                value = value + sigma * residual_weight * s.reduce(batch.residual(x0_hat))
            return value

        levels = karras_schedule(number(s.sigma_max), number(s.sigma_min), s.steps)
        yield from guided_ode(batch, batch.joint_channels, loss, levels)
