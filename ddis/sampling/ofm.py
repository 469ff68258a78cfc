"""`ofm`: functional regression with operator flow matching, by Markov chains in the noise of a flow of (coefficient, solution).

Source: Shi et al., Stochastic Process Learning via Operator Flow Matching, arXiv 2501.04126. The flow's ODE carries noise
n ~ N(0, K) at t = 0 to fields x_1 = T(n) at t = 1. So T(n) is a posterior sample of x_1 if n is one of

    N(n; 0, K) exp(-|ρ(n)|² / 2),     ρ(n) = (R + τ² I)^(-1/2) (y - M T(n)),     R: variance of the observation's noise.

As published, Langevin steps in n, with the gradient through the ODE. There they are SGLD, 20,000 steps from the maximum of the
density, none of them refused; and the public code counts a trace of the velocity's Jacobian, which a density of n does not have.
The rest is ours. What moves are the white numbers w ~ N(0, I) that n is made of, by preconditioned Crank-Nicolson Langevin steps
(Cotter et al., arXiv 1202.0709) about a Gaussian N(m, C) that knows y (Rudolf and Sprungk, arXiv 1504.03461): the posterior
where ρ is linear, with J = -∂ρ/∂w at some w and S = I + J Jᵀ,

    m = Jᵀ S⁻¹ (ρ + J w),     C = I - Jᵀ S⁻¹ J,     or m = 0, C = I without linearisations.

A chain draws v ~ N(0, I) and e ~ N(0, I). From w = v each linearisation takes it to v + Jᵀ S⁻¹ (ρ + J (w - v) - e), a draw from
N(m, C), with the same v and e (randomised maximum likelihood: Oliver, Reynolds and Liu 2008). The steps then are, for a step size
δ, a = (2 - δ) / (2 + δ), u = w - m, ξ ~ N(0, C) and Φ = |ρ|² / 2 + ln N(w; m, C) - ln N(w; 0, I),

    u' = a u - (1 - a) C ∇Φ(u) + (1 - a²)^½ ξ   with probability min(1, exp(h(u, u') - h(u', u))), else u' = u,
    h(u, u') = Φ(u) + (<u' - a u, ∇Φ(u)> + (1 - a) <∇Φ(u), C ∇Φ(u)> / 2) / (1 + a).

Each chain adapts δ in the first half of its steps. Those of the second leave the posterior of the discretised T invariant,
whatever δ, m and C are. A sample is the last state of a chain of its own: exact as far as the steps suffice, and at once where T
is linear.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import TYPE_CHECKING

from pydantic import Field

from ddis.lazy import torch
from ddis.sampling.base import Batch, Evaluations, Method, RunSettings, Size, State

if TYPE_CHECKING:
    from torch import Tensor

_log = logging.getLogger(__name__)

ACCEPTANCE, FIRST, LARGEST = 0.57, 1.0, 2.0  # that δ is adapted to; δ at first, and at most: a = 0
LATE = 1.5  # t = 1 - (1 - k / N)^1.5: shorter steps at the end, where rough modes come out of the noise


class OFMSettings(RunSettings):
    """steps: of each chain, the first half of them with adaptation; ode_steps: of the midpoint rule, N.

    linearisations: of ρ, before the steps; tau: τ, for normalised fields, what the flow errs by.
    """

    steps: int = Field(60, ge=1)
    ode_steps: int = Field(5, ge=1)
    linearisations: int = Field(2, ge=0)
    tau: float = Field(0.01, ge=0)


class OFM(Method[OFMSettings]):
    Settings = OFMSettings
    prior = "flow"

    def cost(self, size: Size) -> Evaluations:
        s, rows = self.settings, size.observed if self.settings.linearisations else 0
        evaluations = 3 * (s.steps + 1) + s.linearisations * (1 + 2 * rows)
        return Evaluations(prior=2 * s.ode_steps * evaluations, memory=16 * size.nodes * rows * max(s.batch, s.samples))

    def sample(self, batch: Batch, prepared: None) -> Iterator[State]:
        s, flow = self.settings, Flow(batch, self.settings.ode_steps, self.settings.tau)
        w = drawn = flow.white()
        error = batch.draw_white(batch.observation.values.shape[1])
        about = Gaussian.of(w.new_zeros(len(w), 0, w.shape[1]), w.new_zeros(len(w), 0))
        for _ in range(s.linearisations):
            about = flow.linearised(w)
            w = about.mean + about.draw(drawn, error)
        now = flow.point(about, w - about.mean)
        size, accepted = torch.full_like(now.potential, FIRST), torch.zeros_like(now.potential)
        for step in range(s.steps):
            xi = about.draw(flow.white(), batch.draw_white(about.rows.shape[1]))
            then = flow.point(about, now.moved(xi, size))
            chance = (now.forward(then, size) - then.forward(now, size)).exp().clamp_max(1).nan_to_num(nan=0.0)
            now = then.where(flow.uniform() < chance, now)
            if step < s.steps // 2:
                size = (size.log() + chance - ACCEPTANCE).exp().clamp_max(LARGEST)
            else:
                accepted += chance / (s.steps - s.steps // 2)
            yield State(step + 1, s.steps, 0.0, batch.free(now.fields))
        mean, least = 100 * float(accepted.mean()), 100 * float(accepted.min())
        _log.info("steps accepted of the second half: %.0f %%, of one chain at least %.0f %%", mean, least)


@dataclass(frozen=True)
class Gaussian:
    """N(m, C) of B chains: J [B, m, D], the Cholesky factor of S [B, m, m], and the mean m [B, D]."""

    rows: Tensor
    root: Tensor
    mean: Tensor

    @classmethod
    def of(cls, rows: Tensor, target: Tensor) -> Gaussian:
        """Of w ~ N(0, I) given target = J w + e [B, m], e ~ N(0, I)."""
        root, failed = torch.linalg.cholesky_ex(rows @ rows.mT + torch.eye(rows.shape[1], dtype=rows.dtype, device=rows.device))
        root = root.masked_fill(failed.bool()[:, None, None], torch.nan)  # of a chain that has diverged
        return cls(rows, root, _times(rows.mT, torch.cholesky_solve(target[..., None], root)[..., 0]))

    def times(self, v: Tensor) -> Tensor:
        """C v [B, D]."""
        return self.draw(v, 0.0)

    def draw(self, white: Tensor, error: Tensor | float) -> Tensor:
        """A draw from N(0, C) of standard normal numbers [B, D] and [B, m], by Matheron's rule."""
        seen = (_times(self.rows, white) + error)[..., None]
        return white - _times(self.rows.mT, torch.cholesky_solve(seen, self.root)[..., 0])


@dataclass(frozen=True)
class Point:
    """Where the chains are: u [B, D], x_1 [B, C, *nodes], Φ [B], ∇Φ and C ∇Φ [B, D]."""

    offset: Tensor
    fields: Tensor
    potential: Tensor
    gradient: Tensor
    drift: Tensor

    def moved(self, xi: Tensor, size: Tensor) -> Tensor:
        """u' of draws ξ [B, D] from N(0, C) and step sizes δ [B]."""
        a = _shrinkage(size)[:, None]
        return a * self.offset - (1 - a) * self.drift + (1 - a**2).sqrt() * xi

    def forward(self, then: Point, size: Tensor) -> Tensor:
        """h(u, u') [B]."""
        a = _shrinkage(size)
        along = ((then.offset - a[:, None] * self.offset) * self.gradient).sum(dim=1)
        return self.potential + (along + (1 - a) * (self.gradient * self.drift).sum(dim=1) / 2) / (1 + a)

    def where(self, chosen: Tensor, other: Point) -> Point:
        """This of the chains that are chosen [B], the other of the rest."""
        parts = ((getattr(self, part.name), getattr(other, part.name)) for part in fields(self))
        return Point(*(torch.where(chosen.reshape(-1, *[1] * (own.ndim - 1)), own, theirs) for own, theirs in parts))


def _shrinkage(size: Tensor) -> Tensor:
    """a of δ."""
    return (2 - size) / (2 + size)


def _times(matrix: Tensor, v: Tensor) -> Tensor:
    """Products [B, m] of matrices [B, m, D] and vectors [B, D]."""
    return (matrix @ v[..., None])[..., 0]


class Flow:
    """T and ρ of the white numbers w [B, D] of chains; float64, and float32 in the network."""

    def __init__(self, batch: Batch, steps: int, tau: float):
        assert batch.prior is not None
        self.batch, self.velocity, observed = batch, batch.prior, batch.observation
        self.times = [1 - (1 - k / steps) ** LATE for k in range(steps + 1)]
        scale = (observed.variance + tau**2).rsqrt().expand(observed.values.shape)
        self.scale = scale.repeat_interleave(len(batch.generators) // len(scale), dim=0)

    def white(self) -> Tensor:
        """A draw of w."""
        batch, shape = self.batch, (self.batch.joint_channels, *self.batch.basis.shape)
        white = batch.noise.white((len(batch.generators), *shape), batch.generators, batch.device)
        self.extent = white.shape[1:]
        return white.flatten(1).double()

    def uniform(self) -> Tensor:
        """Numbers [B] between 0 and 1."""
        return torch.tensor([rng.random() for rng in self.batch.generators], dtype=torch.float64, device=self.batch.device)

    def fields(self, w: Tensor) -> Tensor:
        """x_1 = T(n) [B, C, *nodes]."""
        x = self.batch.noise.colour(w.unflatten(1, self.extent)).float()
        for start, end in pairwise(self.times):
            half = (end - start) / 2
            middle = x + half * self.velocity(x, x.new_full((len(x),), start))
            x = x + 2 * half * self.velocity(middle, x.new_full((len(x),), start + half))
        return x

    def misfit(self, x: Tensor) -> Tensor:
        """ρ [B, m] of x_1."""
        return -self.scale * self.batch.observation.misfit(self.batch.predict_joint(x).double())

    def linearised(self, w: Tensor) -> Gaussian:
        """The posterior of ρ linearised at w. A product with J is counted as an evaluation of the ODE."""
        w = w.detach().requires_grad_()
        with torch.enable_grad():
            misfit = self.misfit(self.fields(w))
        rows = [-torch.autograd.grad(values.sum(), w, retain_graph=True)[0] for values in misfit.unbind(dim=1)]
        self.batch.cost.prior += 2 * (len(self.times) - 1) * misfit.numel()
        jacobian = torch.stack(rows, dim=1)
        return Gaussian.of(jacobian, misfit.detach() + _times(jacobian, w.detach()))

    def point(self, about: Gaussian, offset: Tensor) -> Point:
        """The chains at u = `offset`."""
        w = (about.mean + offset).requires_grad_()
        with torch.enable_grad():
            x = self.fields(w)
            loss = self.misfit(x).square().sum(dim=1) / 2
        (gradient,) = torch.autograd.grad(loss.sum(), w)
        seen = _times(about.rows, offset)
        potential = loss.detach() + (about.mean * offset).sum(dim=1) - seen.square().sum(dim=1) / 2
        gradient = gradient + about.mean - _times(about.rows.mT, seen)
        return Point(offset, x.detach(), potential, gradient, about.times(gradient))
