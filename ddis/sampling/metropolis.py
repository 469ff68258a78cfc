"""Metropolis moves at one level of noise: what the Gauss-Newton step leaves out where the prior is not Gaussian.

Given the values y, the state x = x0 + σ n at a level σ has the density p(x) p(y | x). Draw x0 given x and y, and add new noise:
x' = x0 + σ n' has the same density, if the draw is exact. The step draws x0 from p̂_x(x0) N(y; M G(x0), R) with

    p̂_x(x0) = N(D(x; σ), Σ(x)),

which has the mean of x0 given x and its variance, averaged over rings, but not what else x says: of which kind the field may be.
So x' is a proposal, of density q(x → x') = p̂_x(x') p̂_x(y | x') / p̂_x(y). With p̂_x(y) for p(y | x)

    p(x) p(y | x) q(x → x') = p(x) p̂_x(x') p̂_x(y | x').

p(x) p(x' | x) is symmetric, as x and x' are noisy versions of one field. With p̂_x(x') for p(x' | x) it cancels, and

    x' is accepted with probability min(1, p̂_x'(y | x) / p̂_x(y | x')),

p̂_x(y | x') the density of the values if x0 is of p̂_x and x' is observed too. For a Gaussian prior whose Σ is that of the step and
a linear operator, both are p(y | x, x'), and every move is accepted. Elsewhere D and Σ see x whole, and x' through a Gaussian.

Moves are not exact: the two densities of p̂_x stand for others. How near their samples come to a known posterior is measured
(benchmarks/mixture_gap.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ddis.lazy import torch
from ddis.sampling.base import Batch
from ddis.sampling.covariance import RingCovariance
from ddis.sampling.gauss_newton import DenseUpdate, GaussNewtonStep, cholesky, draw_observation_noise

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
    """Draws x0 [B, *shape] given x_t, after Metropolis moves of x_t; x0_hat is the denoiser's output at x_t.

    Σ is Γ times a number for each ring, and so is the covariance given x' too. Hence J Γ Jᵀ of every ring, [rings, m, m] for each
    field, is computed once, and J Σ Jᵀ of a chain is a sum of these.

    Args:
        update: with the Jacobian of a linear problem.
        moves: of every chain at each level down to `lowest`; below it the step is that of `GaussNewtonStep`.
    """

    def __init__(self, batch: Batch, update: DenseUpdate, covariance: RingCovariance, moves: int, lowest: float):
        super().__init__(batch, update, covariance)
        self.rings, self.moves, self.lowest = covariance, moves, lowest
        self.rows, self.noise = update.rows, update.covariance
        self.values = batch.observation.values.double()[:, None]
        self.accepted: dict[float, float] = {}  # share of the moves, by level
        weights = covariance.variance(torch.ones_like(covariance.members, dtype=torch.float64)[None], 1.0).flatten()
        self.varies, weighted = weights > 0, self.rows * weights
        parts = [covariance.ring == ring for ring in range(len(covariance.members))]
        self.products = torch.stack([weighted[..., part] @ self.rows[..., part].transpose(1, 2) for part in parts], dim=1)

    def __call__(self, x0_hat: Tensor, x_t: Tensor, sigma: float, progress: float) -> Tensor:
        if math.isinf(sigma) or sigma < self.lowest:
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
        with torch.no_grad():
            x0_hat = self.batch.prior(x, torch.full((len(x),), sigma, device=x.device))
        return self._place(x, self.batch.free(x0_hat), sigma)

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
        share = here.share / (1 + here.share)  # d / (1 + d): the gain towards x', and the variance left once x' is known, in σ² Γ
        x = self.basis.forward(self.batch.free(other).double()).flatten(1)
        shift = torch.where(self.varies, share[:, self.rings.ring] * (x - here.mean), 0.0)
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
        return cholesky(covariance.reshape(n, -1, m, m) + self.noise[:, None])


def _where(moved: Tensor, there: Place, here: Place) -> Place:
    """The one place or the other of every chain, moved [B]."""

    def either(name: str) -> Tensor:
        a, b = getattr(there, name), getattr(here, name)
        return torch.where(moved.reshape(-1, *[1] * (a.ndim - 1)), a, b)

    return Place(*map(either, ("x", "mean", "value", "share")))
