"""Noise levels and the probability-flow ODE. Source: EDM, arXiv 2206.00364, eq. 5 and algorithm 1 (without churn)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from ddis.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from ddis.models.denoiser import Denoiser


def karras_schedule(sigma_max: float, sigma_min: float, steps: int, rho: float = 7.0) -> np.ndarray:
    """Levels [steps + 1]: σ_i = (σ_max^(1/ρ) + i/(N-1) (σ_min^(1/ρ) - σ_max^(1/ρ)))^ρ, then 0."""
    ramp = np.linspace(0, 1, steps) if steps > 1 else np.zeros(1)
    levels = (sigma_max ** (1 / rho) + ramp * (sigma_min ** (1 / rho) - sigma_max ** (1 / rho))) ** rho
    return np.append(levels, 0.0)


def heun_step(denoise: Callable[[Tensor, Tensor], Tensor], x: Tensor, sigma: float, sigma_next: float) -> tuple[Tensor, Tensor]:
    """One step of the ODE dx/dσ = (x - D(x; σ))/σ from σ to σ_next: Heun, or Euler if σ_next is 0.

    Args:
        x: [B, C, *nodes] at level σ.

    Returns:
        x at σ_next, and the last output of the denoiser in the step.
    """
    level = torch.full((len(x),), sigma, device=x.device)
    x0 = denoise(x, level)
    slope = (x - x0) / sigma
    x_next = x + (sigma_next - sigma) * slope
    if sigma_next == 0:
        return x_next, x0
    x0 = denoise(x_next, torch.full_like(level, sigma_next))
    return x + (sigma_next - sigma) * 0.5 * (slope + (x_next - x0) / sigma_next), x0


def solve_ode(denoiser: Denoiser, x_t: Tensor, sigma: float, steps: int, sigma_min: float = 1e-3) -> Tensor:
    """x0_hat [B, C, *nodes]: the ODE from x_t at level σ down to 0, on a Karras grid; 2 steps - 1 evaluations of the denoiser.

    One step is the denoiser itself: the posterior mean.
    """
    levels = [float(s) for s in karras_schedule(sigma, min(sigma_min, sigma), steps)]
    with torch.no_grad():
        for level, following in pairwise(levels):
            x_t, _ = heun_step(denoiser, x_t, level, following)
    return x_t
