"""Diffusion posterior sampling: Heun steps of the prior, each corrected by the gradient of a guidance loss.

Source: Chung et al., arXiv 2209.14687; with the schedule and gradient of FunDPS, arXiv 2505.17004: one gradient per step, of the
denoiser's last output in it with respect to the step's starting point, so through all of its calls in the step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from ddis.lazy import torch
from ddis.sampling.base import Batch, PerCase, PositivePerCase, RunSettings, State
from ddis.sampling.schedules import heun_step

if TYPE_CHECKING:
    from torch import Tensor

# (x0_hat [B, C, *nodes], sigma) -> weighted loss of each chain [B]
GuidanceLoss = Callable[["Tensor", float], "Tensor"]


Loss = Literal["mse", "rms", "mean-absolute"]


class DPSSettings(RunSettings):
    """weight, loss: guidance by the observations, mean square, its root, or mean absolute misfit.
    steps, sigma_max, sigma_min: Heun steps of the ODE.

    Below σ = 1 the guidance is multiplied by σ.

    Each may be given per problem, as `{poisson: 3, helmholtz: 5}`, and numbers per problem and percent of the pairs.
    """

    weight: PerCase = 20000.0
    loss: Loss | dict[str, Loss] = "mse"
    steps: int = Field(500, ge=1)
    sigma_max: PositivePerCase = 10.0
    sigma_min: PositivePerCase = 0.01

    def reduce(self, errors: Tensor) -> Tensor:
        """The loss [B] of errors [B, ...]."""
        if self.loss == "mean-absolute":
            return errors.abs().flatten(1).mean(dim=1)
        square = (errors**2).flatten(1).mean(dim=1)
        return square if self.loss == "mse" else square.sqrt()


def guided_ode(batch: Batch, channels: int, loss: GuidanceLoss, levels: np.ndarray) -> Iterator[State]:
    """Yields the state after each step; levels [N + 1] end with 0. No guidance on the last step.

    x_next = Heun(x) - ∇_x loss(D), with D the last output of the denoiser in the step. The first channels are the coefficient.
    """
    assert batch.prior is not None
    steps = len(levels) - 1
    x = float(levels[0]) * batch.draw_noise(channels)
    for step in range(steps):
        sigma, sigma_next = float(levels[step]), float(levels[step + 1])
        if sigma_next == 0:
            with torch.no_grad():
                x, x0_hat = heun_step(batch.prior, x, sigma, 0.0)
        else:
            start = x.detach().requires_grad_()
            with torch.enable_grad():
                x_next, x0_hat = heun_step(batch.prior, start, sigma, sigma_next)
                gradient = torch.autograd.grad(loss(x0_hat, sigma).sum(), start)[0]
            x = (x_next - gradient).detach()
        yield State(step + 1, steps, sigma, batch.free(x if sigma_next == 0 else x0_hat.detach()))
