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
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ddis.lazy import torch
from ddis.sampling.base import Batch
from ddis.sampling.covariance import RingCovariance
from ddis.sampling.gauss_newton import DenseUpdate, GaussNewtonStep, draw_observation_noise
from ddis.sampling.schedules import solve_ode

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Place:
    """A state x [B, C, *nodes] of every chain, and what is known of x0 there.

    mean   D(x; σ) in the basis [B, modes]
    value  M G of it [B, m]
    share  d [B, rings]: Σ = σ² Γ d
    """

    x: Tensor
    mean: Tensor
    value: Tensor
    share: Tensor


class MetropolisStep(GaussNewtonStep):
    """Draws x0 [B, *shape] given x_t, after Metropolis moves of x_t.

    Σ is Γ times a number for each ring, and so is the covariance given x' too. Hence J Γ Jᵀ of every ring, [rings, m, m] for each
    field, is computed once, and J Σ Jᵀ of a chain is a sum of these.

    Args:
        update: with the Jacobian of a linear problem.
        moves: of every chain at each level above sigma_min; below it the step is that of `GaussNewtonStep`.
        ode_steps: from x_t to x0_hat, as those of the annealing.
    """

    def __init__(
        self, batch: Batch, update: DenseUpdate, covariance: RingCovariance, moves: int, sigma_min: float, ode_steps: int
    ):
        super().__init__(batch, update, covariance)
        self.rings, self.moves, self.sigma_min, self.ode_steps = covariance, moves, sigma_min, ode_steps
        self.rows, self.noise = update.rows, update.covariance
        self.values = batch.observation.values.double()[:, None]
        self.accepted: dict[float, float] = {}  # share of the moves, by level
        weights = covariance.variance(torch.ones_like(covariance.members, dtype=torch.float64)[None], 1.0).flatten()
        self.known, weighted = weights > 0, self.rows * weights
        parts = [covariance.ring == ring for ring in range(len(covariance.members))]
        self.products = torch.stack([weighted[..., part] @ self.rows[..., part].transpose(1, 2) for part in parts], dim=1)

    def __call__(self, x0_hat: Tensor, x_t: Tensor, sigma: float, progress: float) -> Tensor:
        if math.isinf(sigma) or sigma < self.sigma_min:
            return super().__call__(x0_hat, x_t, sigma, progress)
        here = self._place(x_t, x0_hat, sigma)
        for _ in range(self.moves):
            there = self._proposed(here, sigma)
            log_ratio = self._log_density(there, here.x, sigma) - self._log_density(here, there.x, sigma)
            uniform = torch.tensor([rng.random() for rng in self.batch.generators], dtype=torch.float64)
            moved = uniform.log().to(log_ratio) < log_ratio
            self.accepted[sigma] = self.accepted.get(sigma, 0.0) + float(moved.double().mean()) / self.moves
            here = _where(moved, there, here)
        return self._drawn(here, sigma)

    def _place(self, x: Tensor, x0_hat: Tensor, sigma: float) -> Place:
        with torch.no_grad():
            value = self.batch.predict(x0_hat).double()
        return Place(x, self.basis.forward(x0_hat.double()).flatten(1), value, self.rings.share(x, sigma))

    def _proposed(self, here: Place, sigma: float) -> Place:
        """x' = x0 + σ n' of the draw x0 at a place, and what is known there."""
        assert self.batch.prior is not None
        space = self.batch.spaces[0]
        x = space.channelled(self._drawn(here, sigma)) + sigma * self.batch.draw_noise(space.channels)
        return self._place(x, self.batch.free(solve_ode(self.batch.prior, x, sigma, self.ode_steps)), sigma)

    def _drawn(self, here: Place, sigma: float) -> Tensor:
        """x0 [B, *shape] given x and the values."""
        variance = self.rings.variance(here.share, sigma).flatten(1)
        shift = variance.sqrt() * self.batch.draw_white(*self.batch.shape).flatten(1)
        residual = self._residual(here, shift) + draw_observation_noise(self.batch)
        z = torch.cholesky_solve(residual[..., None], self._root(here.share, sigma))[..., 0]
        x0 = here.mean + shift + variance * (z @ self.rows).flatten(0, 1)
        return self.basis.inverse(x0.reshape(-1, *self.batch.shape)).to(here.x.dtype)

    def _log_density(self, here: Place, other: Tensor, sigma: float) -> Tensor:
        """log p̂_x(y | x') [B] of x at a place and x' [B, C, *nodes], but for a constant."""
        share = here.share / (1 + here.share)  # of Σ and noise, what Σ is; and of the noise, what is left when x' is known
        x = self.basis.forward(self.batch.free(other).double()).flatten(1)
        shift = torch.where(self.known, share[:, self.rings.ring] * (x - here.mean), 0.0)
        root = self._root(share, sigma)
        white = torch.linalg.solve_triangular(root, self._residual(here, shift)[..., None], upper=False)[..., 0]
        return (-0.5 * white.square().sum(dim=-1) - root.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)).flatten()

    def _residual(self, here: Place, shift: Tensor) -> Tensor:
        """y - M G(mean + shift) [n, K, m]; shift [B, modes]."""
        n, m, modes = self.rows.shape
        return self.values - here.value.reshape(n, -1, m) - shift.reshape(n, -1, modes) @ self.rows.transpose(1, 2)

    def _root(self, share: Tensor, sigma: float) -> Tensor:
        """Cholesky factor of J Σ Jᵀ + R [n, K, m, m], Σ = σ² Γ share; NaN where there is none."""
        n, m, _ = self.rows.shape
        covariance = sigma**2 * share.reshape(n, -1, share.shape[1]) @ self.products.flatten(2)
        root, failed = torch.linalg.cholesky_ex(covariance.reshape(n, -1, m, m) + self.noise[:, None])
        return root.masked_fill(failed.bool()[..., None, None], torch.nan)


def _where(moved: Tensor, there: Place, here: Place) -> Place:
    """The one place or the other of every chain, moved [B]."""

    def either(name: str) -> Tensor:
        a, b = getattr(there, name), getattr(here, name)
        return torch.where(moved.reshape(-1, *[1] * (a.ndim - 1)), a, b)

    return Place(*map(either, ("x", "mean", "value", "share")))
