"""Langevin likelihood step of DDIS (arXiv 2601.23280), for the isotropic approximation p(x0 | x_t) = N(x0_hat, σ² I).

x <- x - lr ∇[ w L(x) / (2 τ²) + ||x - x0_hat||² / (2 σ²) ] + η sqrt(2 lr) n,    L(x) = (1/m) Σ |M (G(x) - u)|

or, with `loss: mean-squared`, L(x) = (1/m) Σ (M (G(x) - u))². On a joint prior x is (coefficient, solution), and L looks at the
second instead of G(x).

With the operator's error in R (`error_model`) L is Huber's function of each misfit r: quadratic as -log N(r; 0, R) up to the
misfit where that pulls as much as w does, linear beyond. The weight is then the most that an observation can pull; an operator
with a large error pulls less. As R goes to 0 this is L again. Correlations in R are left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ddis.errors import InputError
from ddis.lazy import torch
from ddis.sampling.base import Batch, ErrorChoice, PerCase, PositivePerCase, RunSettings, number

if TYPE_CHECKING:
    from torch import Tensor


class LangevinSettings(RunSettings):
    """DAPS with Langevin steps. weight: w; steps, sigma_max, sigma_min: annealing; ode_steps: Heun steps of the ODE per level.

    loss: L, mean-absolute as published, or mean-squared.
    tau, langevin_steps, learning_rate, temperature: τ, the number per level, lr and η of the Langevin steps.
    last_rate: the share of lr that is left on the last level.
    error_model: the operator's own error in the likelihood: none, as published; spectral or white as for ddis-gn.
    """

    weight: PerCase = 20.0
    steps: int = Field(100, ge=1)
    sigma_max: float = Field(10.0, gt=0)
    sigma_min: float = Field(0.01, gt=0)
    ode_steps: int = Field(5, ge=1)
    loss: Literal["mean-absolute", "mean-squared"] = Field("mean-absolute", exclude_if=lambda loss: loss == "mean-absolute")
    tau: float = Field(1e-3, gt=0)
    langevin_steps: int = Field(20, ge=1)
    learning_rate: float = Field(1e-4, gt=0)
    last_rate: PositivePerCase = 0.01
    temperature: float = Field(0.1, ge=0)
    error_model: ErrorChoice = "none"

    def check_loss(self) -> None:
        """Raises InputError for a loss that the operator's error does not go with."""
        if self.error_model != "none" and self.loss != "mean-absolute":
            raise InputError(
                f"loss {self.loss!r} with error_model {self.error_model!r}; accepted: mean-absolute, or error_model none"
            )

    def prior_evaluations(self) -> int:
        """Per sample."""
        return self.steps * (2 * self.ode_steps - 1)


class LangevinStep:
    """Draws x0 near x0_hat with `steps` Langevin steps; over the annealing the rate lr falls linearly to `last_rate` of it.

    Args:
        weight, tau: w and τ of the likelihood; learning_rate: lr; temperature: η.
        predict: what is observed [B, m] of a state x; None: through the batch's operator.
        robust: L as the sum of Huber's functions of the misfits, with the observation's R; else the published L.
        squared: L as the mean square.
    """

    def __init__(
        self,
        batch: Batch,
        weight: float,
        tau: float,
        steps: int,
        learning_rate: float,
        temperature: float,
        predict: Callable[[Tensor], Tensor] | None = None,
        robust: bool = False,
        squared: bool = False,
        last_rate: float = 0.01,
    ):
        self.batch, self.weight, self.tau, self.robust, self.squared = batch, weight, tau, robust, squared
        self.steps, self.learning_rate, self.last_rate, self.temperature = steps, learning_rate, last_rate, temperature
        self.predict = batch.predict if predict is None else predict

    @classmethod
    def of(
        cls, batch: Batch, s: LangevinSettings, weight: PerCase, predict: Callable[[Tensor], Tensor] | None = None
    ) -> LangevinStep:
        """The step that the settings of a run describe, with a weight of their own."""
        robust, squared = s.error_model != "none", s.loss == "mean-squared"
        sizes = number(weight), s.tau, s.langevin_steps, s.learning_rate, s.temperature
        return cls(batch, *sizes, predict, robust, squared, number(s.last_rate))

    def gradient(self, x: Tensor) -> Tensor:
        """∇ w L(x) / (2 τ²), of the shape of x."""
        x = x.detach().requires_grad_()
        size = self.batch.observation.misfit(self.predict(x)).abs()
        slope = self.weight / (2 * self.tau**2 * size.shape[1])
        loss = slope * (size.square() if self.squared else size).sum()
        if self.robust:
            variance = self.batch.observation.covariance.diagonal(dim1=1, dim2=2).to(size)
            variance = variance.repeat_interleave(len(size) // len(variance), dim=0)
            inside = size.clamp(max=slope * variance)
            loss = (inside * (size - inside / 2) / variance).sum()
        return torch.autograd.grad(loss, x)[0]

    def __call__(self, x0_hat: Tensor, x_t: Tensor, sigma: float, progress: float) -> Tensor:
        rate = self.learning_rate * (1 - (1 - self.last_rate) * progress)
        x, channels = x0_hat.clone(), x0_hat[0].numel() // math.prod(self.batch.basis.shape)
        for _ in range(self.steps):
            drift = self.gradient(x) + (x - x0_hat) / sigma**2
            noise = self.batch.draw_noise(channels).reshape(x.shape)
            x = x - rate * drift + self.temperature * math.sqrt(2 * rate) * noise
        return x
