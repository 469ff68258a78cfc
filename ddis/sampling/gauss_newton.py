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
from ddis.sampling.linearisation import Linearisation, conjugate_gradients

if TYPE_CHECKING:
    from torch import Tensor

LEADING_MODES = 256
MOST_NUMBERS = 2**25  # of the rows of chains that are updated together, 256 MB
MOST_ITERATIONS, TYPICAL_ITERATIONS = 200, 6
SMALLEST = 1e-30  # size of a residual that is not divided by


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
    root, failed = torch.linalg.cholesky_ex(weighted @ rows.transpose(1, 2) + covariance)
    root = root.masked_fill(failed.bool()[:, None, None], torch.nan)
    z = torch.cholesky_solve(residual.transpose(1, 2), root).transpose(1, 2)
    return z, z @ weighted


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


class LeadingModes:
    """The operator's response, linearised at x = 0, to the modes of largest prior variance: r columns of its Jacobian.

    The columns are whole fields, so that any mask takes its own from them. For `tikhonov` on the two-valued darcy field, x = 0 is
    below both values and the columns vanish: there is no preconditioner. That of the prior's mean is worse (1132 instead of 481
    evaluations a sample at 32 x 32), as nodes at one of the two values do not respond.
    """

    def __init__(self, batch: Batch, count: int = LEADING_MODES, chunk: int = 64):
        shape, spectrum = batch.shape, batch.spectrum.flatten()
        order = spectrum.argsort(descending=True, stable=True)[:count]
        self.modes = order[spectrum[order] > 0].to(batch.device)
        columns = []
        for part in self.modes.split(chunk):
            unit = torch.zeros(len(part), len(spectrum), dtype=torch.float64, device=batch.device)
            unit[torch.arange(len(part)), part] = 1.0
            origin = torch.zeros(len(part), *shape, device=batch.device)
            linear = Linearisation(origin, batch.sense, batch.cost)
            columns.append(linear.push(batch.basis.inverse(unit.reshape(-1, *shape))))
        self.columns = torch.cat(columns)

    def __call__(self, index: Tensor) -> Tensor:
        """Columns [n, m, r] at the observed places index [n, m]."""
        return self.columns.T[index]


class MatrixFreeUpdate:
    """The correction with the Jacobian at each chain's own point, by conjugate gradients.

    With R = L Lᵀ and W = L⁻¹ J, z solves (I + W Σ Wᵀ) Lᵀz = L⁻¹ r: the residual is then in standard deviations of R. The
    preconditioner is this matrix with the leading columns at x = 0 for W, inverted by Woodbury's formula in r dimensions.

    Args:
        tolerance: root mean square of the residual, in standard deviations of R, at which a chain stops.
    """

    def __init__(self, batch: Batch, leading: LeadingModes, tolerance: float):
        self.batch, self.basis, self.tolerance = batch, batch.basis, tolerance
        self.root = torch.linalg.cholesky(batch.observation.covariance.double())
        self.modes, self.leading = leading.modes, leading(batch.observation.index)
        self.columns = torch.linalg.solve_triangular(self.root, self.leading, upper=False)

    def __call__(self, point: Tensor, x_tilde: Tensor, target: Tensor, variance: Tensor) -> Tensor:
        """As DenseUpdate."""
        gain = self.at(point, variance)
        return gain(gain.residual(x_tilde, target))[1]

    def at(self, point: Tensor, variance: Tensor, covariance: Tensor | None = None) -> MatrixFreeGain:
        """As DenseUpdate."""
        root, columns = self.root, self.columns
        if covariance is not None:
            root = torch.linalg.cholesky(covariance)
            columns = torch.linalg.solve_triangular(root, self.leading, upper=False)
        return MatrixFreeGain(self.batch, point, variance, root, self._scaled(columns, variance), self.tolerance)

    def observed_variance(self, variance: Tensor) -> Tensor:
        """As DenseUpdate, in the leading modes at x = 0."""
        return torch.einsum("nmr,r,nmr->n", self.leading, variance.flatten()[self.modes], self.leading)

    def _scaled(self, columns: Tensor, variance: Tensor) -> Tensor:
        """The leading columns of W Σ^(1/2): [n, m, r], or [B, m, r] where each chain has its own Σ."""
        if variance.shape == self.batch.shape:
            return columns * variance.flatten()[self.modes].sqrt()
        each = columns.repeat_interleave(len(variance) // len(columns), dim=0)
        return each * variance.flatten(1)[:, None, self.modes].sqrt()


class MatrixFreeGain:
    """As DenseGain, with J at each chain's point [B, *shape]; root: L, columns: the leading ones of W Σ^(1/2)."""

    def __init__(self, batch: Batch, point: Tensor, variance: Tensor, root: Tensor, columns: Tensor, tolerance: float):
        self.basis, self.point, self.variance, self.root, self.tolerance = batch.basis, point, variance, root, tolerance
        self.linear = Linearisation(point, batch.predict, batch.cost)
        gram = columns.transpose(1, 2) @ columns
        self.inner = torch.linalg.cholesky(torch.eye(columns.shape[-1], dtype=gram.dtype, device=gram.device) + gram)
        self.columns = columns

    def residual(self, x_tilde: Tensor, target: Tensor) -> Tensor:
        """As DenseGain."""
        shift = self.basis.inverse(x_tilde - self.basis.forward(self.point.double()))
        return target - (self.linear.value + self.linear.push(shift)).reshape(target.shape)

    def __call__(self, residual: Tensor, relative: bool = False) -> tuple[Tensor, Tensor]:
        """As DenseGain, to the tolerance in standard deviations of R; relative: to that share of the residual."""
        right = self._whiten(residual)
        size = right.square().mean(dim=-1, keepdim=True).sqrt().clamp_min(SMALLEST) if relative else None
        right = right if size is None else right / size
        z = conjugate_gradients(self._apply, right, self._precondition, self.tolerance, MOST_ITERATIONS)
        z = z if size is None else z * size
        return self._whiten(z, transposed=True), self._weighted(z).reshape(*residual.shape[:2], -1)

    def _weighted(self, z: Tensor) -> Tensor:
        """Σ Wᵀz [B, *shape] in the basis, of whitened z [n, K, m]."""
        return self.variance * self.basis.forward(self.linear.pull(self._whiten(z, transposed=True).flatten(0, 1)))

    def _apply(self, z: Tensor) -> Tensor:
        return z + self._whiten(self.linear.push(self.basis.inverse(self._weighted(z))).reshape(z.shape))

    def _precondition(self, z: Tensor) -> Tensor:
        grouped = z.reshape(len(self.columns), -1, z.shape[-1])
        known = torch.cholesky_solve((grouped @ self.columns).transpose(1, 2), self.inner).transpose(1, 2)
        return (grouped - known @ self.columns.transpose(1, 2)).reshape(z.shape)

    def _whiten(self, z: Tensor, transposed: bool = False) -> Tensor:
        """L⁻¹ z, or L⁻ᵀ z, of z [n, K, m]."""
        root = self.root.transpose(1, 2) if transposed else self.root
        return torch.linalg.solve_triangular(root, z.transpose(1, 2), upper=transposed).transpose(1, 2)


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
