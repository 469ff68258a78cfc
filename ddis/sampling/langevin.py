"""Langevin likelihood step of DDIS (arXiv 2601.23280), for the isotropic approximation p(x0 | x_t) = N(x0_hat, σ² I).

x <- x - lr ∇[ w L(x) / (2 τ²) + ||x - x0_hat||² / (2 σ²) ] + η sqrt(2 lr) n,    L(x) = (1/m) Σ |M (G(x) - u)|
"""

import math

import torch
from torch import Tensor

from ddis.sampling.base import Task


class LangevinStep:
    """Draws x0 near x0_hat with `steps` Langevin steps; the rate lr falls linearly to 1 % over the annealing.

    Args:
        weight, tau: w and τ of the likelihood; learning_rate: lr; temperature: η.
    """

    def __init__(self, task: Task, weight: float, tau: float, steps: int, learning_rate: float, temperature: float):
        self.task, self.weight, self.tau = task, weight, tau
        self.steps, self.learning_rate, self.temperature = steps, learning_rate, temperature

    def gradient(self, x: Tensor) -> Tensor:
        """∇ w L(x) / (2 τ²) [B, S, S]."""
        observation = self.task.observation
        x = x.detach().requires_grad_()
        samples = len(x) // len(observation.values)
        misfit = observation.take(self.task.operator(x)) - observation.values.to(x).repeat_interleave(samples, dim=0)
        loss = misfit.abs().mean(dim=1).sum() * (self.weight / (2 * self.tau**2))
        return torch.autograd.grad(loss, x)[0]

    def __call__(self, x0_hat: Tensor, sigma: float, progress: float) -> Tensor:
        rate = self.learning_rate * (1 - 0.99 * progress)
        x = x0_hat.clone()
        for _ in range(self.steps):
            drift = self.gradient(x) + (x - x0_hat) / sigma**2
            x = x - rate * drift + self.temperature * math.sqrt(2 * rate) * self.task.draw_noise()[:, 0]
        return x
