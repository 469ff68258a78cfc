"""Metropolis moves at one level of noise: what the Gauss-Newton step leaves out where the prior is not Gaussian.

At level σ, x = x0 + σ n has the posterior π(x) ∝ p(x) p(y | x). A draw of x0 given x and y with new noise, x' = x0 + σ n', would
leave π as it is, were x0 drawn from p(x0 | x, y). The step draws it from p̂_x(x0) N(y; M G(x0), R) with

    p̂_x(x0) = N(D(x; σ), Σ(x)),

which has the mean and the covariance of x0 given x, but not what else y says: how smooth the field is, of which kind. So x' is a
proposal. Its density is p̂_x(x') p̂_x(y | x') / p̂_x(y), with p̂_x(y) for p(y | x) as well, so that

    π(x) q(x → x') = p(x) p̂_x(x') p̂_x(y | x').

p(x) p(x' | x) is symmetric, being the density of two noisy versions of one field. With p̂_x(x') for p(x' | x) it cancels:

    x' is accepted with probability min(1, p̂_x'(y | x) / p̂_x(y | x')),

p̂_x(y | x') the density of the values if x0 has the Gaussian p̂_x and x' is observed as well. For a Gaussian prior and a linear
operator both are p(y | x, x'), and every move is accepted. Elsewhere they differ in what x and x' say about x0 beyond a
Gaussian. What is left is the error of p̂_x(x') as a density, which shrinks with σ, and is forgotten from level to level.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ddis.lazy import torch
from ddis.sampling.base import Batch
from ddis.sampling.covariance import Covariance
from ddis.sampling.gauss_newton import DenseGain, DenseUpdate, GaussNewtonStep, draw_observation_noise
from ddis.sampling.schedules import solve_ode

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Place:
    """A state x [B, C, *nodes] of every chain, and `gain`: mean (its point, in the basis), Σ and prediction of x0 given x."""

    x: Tensor
    gain: DenseGain


class MetropolisStep(GaussNewtonStep):
    """Draws x0 [B, *shape] given x_t, after Metropolis moves of x_t.

    Args:
        update: with the Jacobian of a linear problem.
        moves: of every chain at each level above sigma_min; below it the step is that of `GaussNewtonStep`.
        ode_steps: from x_t to x0_hat, as those of the annealing.
    """

    def __init__(self, batch: Batch, update: DenseUpdate, covariance: Covariance, moves: int, sigma_min: float, ode_steps: int):
        super().__init__(batch, update, covariance)
        self.dense, self.moves, self.sigma_min, self.ode_steps = update, moves, sigma_min, ode_steps
        self.values = batch.observation.values.double()[:, None]
        self.accepted: dict[float, float] = {}  # share of the moves, by level
        self.noise_spectrum = batch.noise.spectrum(batch.basis).to(batch.device).double()

    def __call__(self, x0_hat: Tensor, x_t: Tensor, sigma: float, progress: float) -> Tensor:
        if math.isinf(sigma) or sigma < self.sigma_min:
            return super().__call__(x0_hat, x_t, sigma, progress)
        here = self._place(x_t, x0_hat, sigma)
        for _ in range(self.moves):
            there = self._proposed(here, sigma)
            log_ratio = self._log_density(there, here.x, sigma) - self._log_density(here, there.x, sigma)
            uniform = torch.tensor([rng.random() for rng in self.batch.generators], dtype=torch.float64)
            moved = uniform.log().to(log_ratio) < log_ratio.flatten()
            self.accepted[sigma] = self.accepted.get(sigma, 0.0) + float(moved.double().mean()) / self.moves
            here = _where(moved, there, here)
        return self._drawn(here)

    def _place(self, x: Tensor, x0_hat: Tensor, sigma: float) -> Place:
        return Place(x, self.dense.at(x0_hat, self.covariance(x, sigma)))

    def _proposed(self, here: Place, sigma: float) -> Place:
        """x' = x0 + σ n' of the draw x0 at a place, and what the denoiser says there."""
        assert self.batch.prior is not None
        space = self.batch.spaces[0]
        x = space.channelled(self._drawn(here)) + sigma * self.batch.draw_noise(space.channels)
        return self._place(x, self.batch.free(solve_ode(self.batch.prior, x, sigma, self.ode_steps)), sigma)

    def _drawn(self, here: Place) -> Tensor:
        """x0 [B, *shape] given x and the values."""
        gain = here.gain
        x_tilde = gain.point + gain.variance.sqrt() * self.batch.draw_white(*self.batch.shape)
        _, correction = gain(gain.residual(x_tilde, self.values + draw_observation_noise(self.batch)))
        return self.basis.inverse(x_tilde + correction.reshape(x_tilde.shape)).to(here.x.dtype)

    def _log_density(self, here: Place, other: Tensor, sigma: float) -> Tensor:
        """log p̂_x(y | x') [n, K] of x at a place and x' [B, C, *nodes], but for a constant."""
        gain, noise = here.gain, sigma**2 * self.noise_spectrum
        share = gain.variance / (gain.variance + noise)
        mean = gain.point + share * (self.basis.forward(self.batch.free(other).double()) - gain.point)
        return replace(gain, variance=share * noise).log_density(gain.residual(mean, self.values))


def _where(chosen: Tensor, there: Place, here: Place) -> Place:
    """The one place or the other of every chain, chosen [B]."""

    def either(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(chosen.reshape(-1, *[1] * (a.ndim - 1)), a, b)

    a, b = there.gain, here.gain
    value = either(a.value.flatten(0, 1), b.value.flatten(0, 1)).reshape(a.value.shape)
    variance = either(a.variance, b.variance) if len(a.variance) == len(chosen) else b.variance
    return Place(either(there.x, here.x), replace(b, value=value, point=either(a.point, b.point), variance=variance))
