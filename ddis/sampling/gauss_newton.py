"""Spectral Gauss-Newton likelihood step: draws x0 ~ p(x0 | x_t, y) exactly for a Gaussian prior and a linear operator.

With p(x0 | x_t) = N(x0_hat, Σ), Σ diagonal in the problem's basis (see `ddis.sampling.covariance`), and y = M G(x) + e,
e ~ N(0, R), linearised at x_0 (J the Jacobian of M G there), Matheron's rule gives

    x0 = x~ + Σ Jᵀ (J Σ Jᵀ + R)⁻¹ (y + e - M G(x_0) - J (x~ - x_0)),    x~ ~ N(x0_hat, Σ),  e ~ N(0, R),

repeated from x_0 <- x0 where G is not linear, with the same x~ and e. There are two ways to the correction:

- `DenseUpdate`: J once, at x = 0, for all fields, and an m x m factorisation per Σ and level. Exact for linear G. Masks
  may differ from field to field: rows are computed once for the union of their nodes, at most S² of them.
- `MatrixFreeUpdate`: J at every chain's own point, through products alone; it never asks for a row, whatever the masks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ddis.lazy import torch
from ddis.sampling.base import Batch, Evaluations, RunSettings, Size
from ddis.sampling.covariance import Covariance
from ddis.sampling.matrix_free import LEADING_MODES, TYPICAL_ITERATIONS, LeadingModes, MatrixFreeUpdate

if TYPE_CHECKING:
    from torch import Tensor

MOST_NUMBERS = 2**25  # of the rows of chains that are updated together, 256 MB


def jacobian_rows(batch: Batch, x: Tensor, index: Tensor, chunk: int = 128) -> tuple[Tensor, Tensor]:
    """Rows [G, m, *shape] of the Jacobian at x [G, *shape], for what is observed at index [G, m], by vector products.

    Returns the rows, and the values [G, m] there.
    """
    groups, m = index.shape
    owner = torch.arange(groups, device=x.device).repeat_interleave(m)
    places = index.flatten()
    rows, found = [], []
    for start in range(0, len(places), chunk):
        part = slice(start, start + chunk)
        point = x[owner[part]].detach().requires_grad_()
        values = batch.sense(point).gather(1, places[part, None])
        rows.append(torch.autograd.grad(values.sum(), point)[0])
        found.append(values.detach())
    return torch.cat(rows).reshape(groups, m, *x.shape[1:]), torch.cat(found).reshape(groups, m)


class SharedJacobian:
    """The Jacobian of a (nearly) linear operator at x = 0, for all that any field observes: computed once for all masks."""

    def __init__(self, batch: Batch):
        seen = batch.observation.index.unique()
        origin = torch.zeros(1, *batch.shape, device=batch.device)
        rows, values = jacobian_rows(batch, origin, seen[None])
        self.rows = batch.basis.forward(rows[0].double()).flatten(1)
        self.values = values[0].double()
        self.place = torch.full((len(batch.observation.functionals.index),), -1, device=batch.device)
        self.place[seen] = torch.arange(len(seen), device=batch.device)

    def __call__(self, index: Tensor) -> Tensor:
        """Rows [n, m, modes] in the basis, for what is observed at index [n, m]."""
        return self.rows[self.place[index]]

    def at_origin(self, index: Tensor) -> Tensor:
        """Values [n, m] at x = 0."""
        return self.values[self.place[index]]


def gaussian_update(rows: Tensor, variance: Tensor, covariance: Tensor, residual: Tensor) -> Tensor:
    """Σ Jᵀ (J Σ Jᵀ + R)⁻¹ r, the correction of Matheron's rule: see `gaussian_weights`."""
    return gaussian_weights(rows, variance, covariance, residual)[1]


def gaussian_weights(rows: Tensor, variance: Tensor, covariance: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
    """z = (J Σ Jᵀ + R)⁻¹ r, and the correction Σ Jᵀ z of Matheron's rule.

    Args:
        rows: J [G, m, P] in the basis; variance: diagonal of Σ [P], or [G, 1, P] of every group; covariance: R [G, m, m];
        residual: r [G, K, m].

    Returns:
        z [G, K, m], and corrections [G, K, P] of the coefficients in the basis; NaN for a chain whose J is, which leaves the
        others alone.
    """
    weighted = rows * variance
    root = cholesky(weighted @ rows.transpose(1, 2) + covariance)
    z = torch.cholesky_solve(residual.transpose(1, 2), root).transpose(1, 2)
    return z, z @ weighted


def cholesky(matrix: Tensor) -> Tensor:
    """Cholesky factors of matrices [..., m, m]; NaN for one that has none, which leaves the others alone."""
    root, failed = torch.linalg.cholesky_ex(matrix)
    return root.masked_fill(failed.bool()[..., None, None], torch.nan)


def chain_updates(rows: Tensor, variance: Tensor, covariance: Tensor, residual: Tensor) -> Tensor:
    """`gaussian_update` of n fields with K chains, with one Σ [*shape] for all chains or each chain's own [n K, *shape]."""
    return chain_weights(rows, variance, covariance, residual)[1]


def chain_weights(rows: Tensor, variance: Tensor, covariance: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
    """`gaussian_weights` of n fields with K chains, as `chain_updates`."""
    n, samples, m = residual.shape
    if variance.numel() == rows.shape[-1]:
        return gaussian_weights(rows, variance.flatten(), covariance, residual)
    chains, own = residual.reshape(-1, 1, m), variance.flatten(1)[:, None]
    number = torch.arange(len(chains), device=chains.device)
    parts = [
        gaussian_weights(rows[part // samples], own[part], covariance[part // samples], chains[part])
        for part in number.split(max(1, MOST_NUMBERS // rows[0].numel()))
    ]
    z, updates = (torch.cat(part).reshape(n, samples, -1) for part in zip(*parts, strict=True))
    return z, updates


def draw_observation_noise(batch: Batch) -> Tensor:
    """Noise [n, K, m] of covariance R, one draw per chain."""
    root = torch.linalg.cholesky(batch.observation.covariance.double())
    n, m = batch.observation.values.shape
    return batch.draw_white(m).reshape(n, -1, m) @ root.transpose(1, 2)


class DenseUpdate:
    """The correction with one Jacobian for all chains of a field, factorised."""

    def __init__(self, batch: Batch, shared: SharedJacobian):
        self.batch, self.basis = batch, batch.basis
        self.covariance = batch.observation.covariance.double()
        self.rows = shared(batch.observation.index)

    def __call__(self, point: Tensor, x_tilde: Tensor, target: Tensor, variance: Tensor) -> Tensor:
        """Σ Jᵀ z [n, K, S²] in the basis, from `point` [B, S, S]; x_tilde [B, S, S] in the basis, target [n, K, m].

        variance: diagonal of Σ [S, S] of all chains, or [B, S, S] of each.
        """
        gain = self.at(point, variance)
        return gain(gain.residual(x_tilde, target))[1]

    def at(self, point: Tensor, variance: Tensor, covariance: Tensor | None = None) -> DenseGain:
        """The equations at `point` [B, S, S]; covariance [n, m, m] in place of R."""
        with torch.no_grad():
            predicted = self.batch.predict(point).double()
        shape = len(self.rows), -1, self.rows.shape[1]
        covariance = self.covariance if covariance is None else covariance
        return DenseGain(self.rows, predicted.reshape(shape), self.basis.forward(point.double()), variance, covariance)

    def observed_variance(self, variance: Tensor) -> Tensor:
        """Sum [n] over the observed values of the diagonal of J Σ Jᵀ, for one Σ [S, S]."""
        return torch.einsum("nmp,p,nmp->n", self.rows, variance.flatten(), self.rows)


@dataclass(frozen=True)
class DenseGain:
    """(J Σ Jᵀ + R) z = r of all chains, with J [n, m, modes]; value [n, K, m] = M G(x_0) at the point x_0, in the basis."""

    rows: Tensor
    value: Tensor
    point: Tensor
    variance: Tensor
    covariance: Tensor

    def residual(self, x_tilde: Tensor, target: Tensor) -> Tensor:
        """r = target - M G(x_0) - J (x~ - x_0), [n, K, m]."""
        shift = (x_tilde - self.point).reshape(len(self.rows), -1, self.rows.shape[-1])
        return target - self.value - shift @ self.rows.transpose(1, 2)

    def __call__(self, residual: Tensor, relative: bool = False) -> tuple[Tensor, Tensor]:
        """z [n, K, m] and Σ Jᵀ z [n, K, modes], to rounding."""
        return chain_weights(self.rows, self.variance, self.covariance, residual)


Prepared = SharedJacobian | LeadingModes


def make_update(batch: Batch, shared: Prepared, tolerance: float) -> DenseUpdate | MatrixFreeUpdate:
    """The correction that goes with what was prepared for all fields."""
    return DenseUpdate(batch, shared) if isinstance(shared, SharedJacobian) else MatrixFreeUpdate(batch, shared, tolerance)


def gauss_newton_cost(size: Size, levels: int, dense: bool, settings: RunSettings, passes: int = 1) -> Evaluations:
    """Of `levels` corrections per sample, with `passes` predictions at each."""
    fields = settings.fields_per_batch
    if dense:
        rows = min(size.nodes, size.observed * size.fields)
        memory = 8 * size.nodes * (2 * rows + 3 * size.observed * fields)
        return Evaluations(operator=levels * passes, shared=3 * rows, memory=memory)
    # Two passes, and two products in each of the iterations, which are fewer with the preconditioner.
    operator = levels * (passes + 4 + 2 * TYPICAL_ITERATIONS)
    memory = 8 * LEADING_MODES * (size.nodes + 2 * size.observed * fields)
    return Evaluations(operator=operator, shared=4 * LEADING_MODES, memory=memory)


class GaussNewtonStep:
    """Draws x0 [B, *shape] given x0_hat [B, *shape]; float64 inside.

    Args:
        update: the way to the correction.
        covariance: Σ.
        iterations: Gauss-Newton iterations (1 is exact for linear operators).
    """

    def __init__(self, batch: Batch, update: DenseUpdate | MatrixFreeUpdate, covariance: Covariance, iterations: int = 1):
        self.batch, self.basis, self.update, self.iterations = batch, batch.basis, update, iterations
        self.covariance = covariance

    def __call__(self, x0_hat: Tensor, x_t: Tensor, sigma: float, progress: float) -> Tensor:
        variance = self.covariance(x_t, sigma)
        x_tilde = self.draw(x0_hat, variance)
        target = self.batch.observation.values.double()[:, None] + draw_observation_noise(self.batch)
        point = x0_hat
        for _ in range(self.iterations):
            correction = self.update(point, x_tilde, target, variance)
            point = self.basis.inverse(x_tilde + correction.reshape(x_tilde.shape)).to(x0_hat.dtype)
        return point

    def draw(self, x0_hat: Tensor, variance: Tensor) -> Tensor:
        """x~ [B, *shape] in the basis, float64."""
        return self.basis.forward(x0_hat.double()) + variance.sqrt() * self.batch.draw_white(*self.batch.shape)
