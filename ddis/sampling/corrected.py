"""The Gauss-Newton step with a network's Jacobian and a solver's residual, for `operator: corrected`.

A draw of x0 is the minimum of

    Q(x) = ||x - x~||² in Σ + ||y + e - M G(x)||² in R,    x~ ~ N(x0_hat, Σ),  e ~ N(0, R),

G the solver, R the covariance of the noise alone. It is sought among x = x~ + Σ Jᵀ z, J the Jacobian of M F, F the network.
On levels that have calls of the solver, with y + e - M G(x) - R z = r:

- the first point is the network's own draw, with its error in R_F, as in `ddis.sampling.gauss_newton`;
- the next is x + Σ Jᵀ d with the preconditioned residual d = (J Σ Jᵀ + R + R_F)⁻¹ r, and costs one call of G;
- x then becomes the minimum of Q in the affine hull of all points, where M G is interpolated from its values there.

For a linear G this is the Krylov space of GMRES on (M G Σ Jᵀ + R) z = y + e - M G(x~), with Q in place of the residual's norm:
what J cannot represent is not fitted at any price. Where G is not linear, the products are differences of its values at two
points. A chain stops by the discrepancy: when r, what is left of it beyond the noise's own share R z, is small against the noise.

What the solver said is kept: on the next levels M F has the offset M G - M F of the last x, and only the error of the change is
left in R_F: of the variance of M F, Σ leaves a share of what the prior has, and the error is taken to grow with its root, as
it does with the size of a field (`ddis.operators.error.error_growth`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

from ddis.lazy import torch
from ddis.sampling.base import Batch
from ddis.sampling.covariance import AverageSpectrum, Covariance
from ddis.sampling.gauss_newton import DenseGain, DenseUpdate, GaussNewtonStep
from ddis.sampling.matrix_free import TYPICAL_ITERATIONS, MatrixFreeGain, MatrixFreeUpdate

if TYPE_CHECKING:
    from torch import Tensor

RIDGE = 1e-12  # of the normal equations for secants of length 1

Point: TypeAlias = "tuple[Tensor, Tensor, Tensor]"  # x [n, K, modes], its z and M G(x) [n, K, m]


def calls_per_level(calls: int, levels: int) -> list[int]:
    """Calls of the solver on each level: none in the first half, then as many on each as can be, the earlier ones first.

    At high noise most of what a call tells is forgotten by the next level (docs/samplers.md).
    """
    last = (levels + 1) // 2
    each, more = divmod(calls, last)
    return [0] * (levels - last) + [each + (number < more) for number in range(last)]


def correction_cost(calls: int, levels: int, dense: bool) -> float:
    """Evaluations of the network, at most: one on each level with calls, and the products of each call's residual."""
    products = 0 if dense else 2 * TYPICAL_ITERATIONS + 1
    return sum(number > 0 for number in calls_per_level(calls, levels)) + products * calls


class CorrectedStep(GaussNewtonStep):
    """Draws x0 [B, *shape] given x0_hat [B, *shape], level by level.

    Args:
        tolerance: root mean square of r, in standard deviations of the noise, at which a chain stops.
        calls: of the solver on each level, per chain.
    """

    def __init__(
        self,
        batch: Batch,
        update: DenseUpdate | MatrixFreeUpdate,
        covariance: Covariance,
        iterations: int,
        tolerance: float,
        calls: Sequence[int],
    ):
        super().__init__(batch, update, covariance, iterations)
        o = batch.observation
        self.tolerance, self.calls, self.values = tolerance, iter(calls), o.values.double()[:, None]
        self.noise = o.variance.double().expand(o.values.shape)
        self.average = AverageSpectrum(batch)
        self.prior_variance = update.observed_variance(self.average.spectrum)
        self.offset: Tensor | None = None  # M G - M F [n, K, m] at the last point

    def __call__(self, x0_hat: Tensor, x_t: Tensor, sigma: float, progress: float) -> Tensor:
        calls, variance = next(self.calls), self.covariance(x_t, sigma)
        covariance = self._covariance(x_t, sigma)
        x_tilde = self.draw(x0_hat, variance)
        n, m = self.noise.shape
        white = self.batch.draw_white(m).reshape(n, -1, m)
        target = self.values + white @ torch.linalg.cholesky(covariance).transpose(1, 2)
        target = target if self.offset is None else target - self.offset
        x, point = x_tilde, x0_hat
        for _ in range(self.iterations):
            gain = self.update.at(point, variance, covariance)
            z, correction = gain(gain.residual(x_tilde, target))
            x = x_tilde + correction.reshape(x_tilde.shape)
            point = self._field(x)
        if calls:
            search = Search(x_tilde, self.values + white * self.noise.sqrt()[:, None], variance, self.noise[:, None])
            x = self._corrected(search, gain, x.reshape(n, -1, x[0].numel()), z, calls).reshape(x.shape)
            point = self._field(x)
        return point.to(x0_hat.dtype)

    def _covariance(self, x_t: Tensor, sigma: float) -> Tensor:
        """Noise, and what is left of the network's error, [n, m, m]."""
        whole = self.batch.observation.covariance.double()
        if self.offset is None:
            return whole
        left = self.update.observed_variance(self.average(x_t, sigma))
        share = torch.where(self.prior_variance > 0, left / self.prior_variance, 1.0).sqrt()[:, None, None]
        return (1 - share) * torch.diag_embed(self.noise) + share * whole

    def _corrected(self, search: Search, gain: DenseGain | MatrixFreeGain, x: Tensor, z: Tensor, calls: int) -> Tensor:
        """x [n, K, modes] after `calls` calls; every chain stops by itself. Sets the offset."""
        best = x, z, torch.full_like(z, torch.nan)
        active = x.isfinite().all(dim=-1, keepdim=True)
        for _ in range(calls):
            if not bool(active.any()):
                break
            search.add(x, z, self._solved(x, active))
            best = _where(active, search.minimum(), best)
            residual = search.target - best[2] - search.noise * best[1]
            active = active & ((residual.square() / search.noise).mean(dim=-1, keepdim=True) > self.tolerance**2)
            step, correction = gain(residual, relative=True)
            x, z, _ = _where(active, (best[0] + correction, best[1] + step, best[2]), best)
        with torch.no_grad():
            predicted = self.batch.predict(self._field(best[0]).float()).double()
        self.offset = best[2] - predicted.reshape(z.shape)
        return x

    def _solved(self, x: Tensor, active: Tensor) -> Tensor:
        """M G(x) [n, K, m] of the active chains, NaN of the others."""
        found = self.batch.solve(self._field(x).float(), active.flatten()).double()
        return found.reshape(*x.shape[:2], -1)

    def _field(self, x: Tensor) -> Tensor:
        return self.basis.inverse(x.reshape(-1, *self.batch.shape))


class Search:
    """The points [n, K, modes] of every chain so far, their z and M G, and the minimum of Q in their affine hull.

    target: y + e [n, K, m]; variance: Σ, of all chains or of each; noise: R, diagonal [n, 1, m].
    """

    def __init__(self, x_tilde: Tensor, target: Tensor, variance: Tensor, noise: Tensor):
        self.target, self.noise = target, noise
        shape = *target.shape[:2], -1
        self.x_tilde = x_tilde.reshape(shape)
        self.weight = torch.where(variance > 0, variance.rsqrt(), 0.0).expand_as(x_tilde).reshape(shape)
        self.points: list[Point] = []

    def add(self, x: Tensor, z: Tensor, value: Tensor) -> None:
        self.points.append((x, z, value))

    def minimum(self) -> Point:
        """x, z and M G(x) at the minimum; NaN for a chain one of whose points has no value."""
        x, z, value = self.points[-1]
        if len(self.points) == 1:
            return x + 0 * value.sum(dim=-1, keepdim=True), z, value
        secants = [torch.stack([b - a for a, b in pairwise(part)], dim=-1) for part in zip(*self.points, strict=True)]
        columns = self._whitened(secants[0], secants[2])
        size = columns.square().sum(dim=2, keepdim=True).sqrt().clamp_min(torch.finfo(columns.dtype).tiny)
        columns = columns / size
        right = self._whitened((self.x_tilde - x)[..., None], (self.target - value)[..., None])
        gram = columns.transpose(2, 3) @ columns + RIDGE * torch.eye(columns.shape[-1]).to(columns)
        root, _ = torch.linalg.cholesky_ex(gram)
        share = torch.cholesky_solve(columns.transpose(2, 3) @ right, root) / size.transpose(2, 3)
        x, z, value = (old + (part @ share)[..., 0] for old, part in zip((x, z, value), secants, strict=True))
        return x, z, value

    def _whitened(self, x: Tensor, value: Tensor) -> Tensor:
        """Σ^(-1/2) x above R^(-1/2) value, [n, K, modes + m, columns]."""
        return torch.cat([self.weight[..., None] * x, self.noise.rsqrt()[..., None] * value], dim=2)


def _where(which: Tensor, yes: Point, no: Point) -> Point:
    """The first for the chains in `which` [n, K, 1], the second for the others."""
    x, z, value = (torch.where(which, *pair) for pair in zip(yes, no, strict=True))
    return x, z, value
