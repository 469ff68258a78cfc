"""`diffusionpde`: DPS on a joint prior with white noise, guided by norms of misfit and residual in physical units.

Source: DiffusionPDE, arXiv 2406.17763. Guidance of the first part of the steps: w ||M (u_hat - u)||; of the others:
0.1 w ||M (u_hat - u)|| + w_r ||residual|| / (S-1)². The published weights are for 128 x 128 and 500 observations.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pydantic import Field

from ddis.models.denoiser import SIGMA_DATA
from ddis.sampling.base import Batch, Evaluations, Method, PerCase, RunSettings, Size, State, number
from ddis.sampling.dps import guided_ode
from ddis.sampling.schedules import karras_schedule

if TYPE_CHECKING:
    from torch import Tensor


class DiffusionPDESettings(RunSettings):
    """weight: w, of the observations; residual_weight: w_r; steps, sigma_max, sigma_min: Heun steps of the ODE.

    first_phase   share of the steps that are guided by the observations alone
    late_weight   what w is multiplied by after them
    """

    weight: PerCase = 40.0
    residual_weight: PerCase = 1.0
    first_phase: float = Field(0.8, ge=0, le=1)
    late_weight: float = Field(0.1, ge=0)
    steps: int = Field(2000, ge=1)
    sigma_max: float = Field(80.0, gt=0)
    sigma_min: float = Field(0.002, gt=0)


class DiffusionPDE(Method[DiffusionPDESettings]):
    Settings = DiffusionPDESettings
    prior = "joint"
    noise = "white"
    tuned = "weight"

    def cost(self, size: Size) -> Evaluations:
        return Evaluations(prior=6 * self.settings.steps)

    def sample(self, batch: Batch, prepared: Any) -> Iterator[State]:
        s = self.settings
        levels = karras_schedule(s.sigma_max, s.sigma_min, s.steps)
        switch = float(levels[math.ceil(round(s.first_phase * s.steps, 9))])
        weight, residual_weight = number(s.weight), number(s.residual_weight)
        coefficient_unit, solution_unit = batch.units
        residual_unit = SIGMA_DATA * coefficient_unit / (batch.basis.shape[-1] - 1) ** 2

        def loss(x0_hat: Tensor, sigma: float) -> Tensor:
            observed = solution_unit * batch.observation.misfit(batch.predict_joint(x0_hat)).norm(dim=1)
            if sigma > switch:
                return weight * observed
            equation = residual_unit * batch.residual(x0_hat).flatten(1).norm(dim=1)
            return s.late_weight * weight * observed + residual_weight * equation

        yield from guided_ode(batch, batch.joint_channels, loss, levels)
