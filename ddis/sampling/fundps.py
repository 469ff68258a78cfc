"""`fundps`: DPS on a joint prior of (coefficient, solution), guided by the observed nodes of the solution and the residual.

Source: FunDPS, arXiv 2505.17004. The published weights are for 128 x 128 and 500 observations.
"""

from collections.abc import Iterator
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from ddis.sampling.base import Method, PerCase, RunSettings, State, Task, number
from ddis.sampling.dps import guided_ode
from ddis.sampling.schedules import karras_schedule


class FunDPSSettings(RunSettings):
    """weight, loss: guidance by the observations, mean square or its root; residual_weight: by the equation, once σ <= 1.

    Below σ = 1 both are multiplied by σ.

    Each may be given per problem, as `{poisson: 3, helmholtz: 5}`, and numbers per problem and percent of the pairs.
    """

    weight: PerCase = 20000.0
    residual_weight: PerCase = 0.0
    loss: Literal["mse", "rms"] | dict[str, Literal["mse", "rms"]] = "mse"
    steps: int = Field(500, ge=1)
    sigma_max: PerCase = 10.0
    sigma_min: PerCase = 0.01


class FunDPS(Method):
    Settings = FunDPSSettings
    prior = "joint"
    tuned = "weight"

    def sample(self, task: Task) -> Iterator[State]:
        s = self.settings
        assert isinstance(s, FunDPSSettings)
        samples = len(task.generators) // len(task.observation.values)
        observed = task.observation.values.float().repeat_interleave(samples, dim=0)
        weight, residual_weight = number(s.weight), number(s.residual_weight)

        def reduce(square: Tensor) -> Tensor:
            return square if s.loss == "mse" else square.sqrt()

        def loss(x0_hat: Tensor, sigma: float) -> Tensor:
            misfit = task.observation.take(x0_hat[:, 1]) - observed
            value = min(1.0, sigma) * weight * reduce((misfit**2).mean(dim=1))
            if residual_weight and sigma <= 1:
                value = value + sigma * residual_weight * reduce((task.residual(x0_hat) ** 2).flatten(1).mean(dim=1))
            return value

        with torch.enable_grad():
            yield from guided_ode(task, 2, loss, karras_schedule(number(s.sigma_max), number(s.sigma_min), s.steps))
