"""The Gauss-Newton correction with the Jacobian at each chain's own point, by products alone (see `gauss_newton`)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ddis.lazy import torch
from ddis.linear import conjugate_gradients
from ddis.sampling.base import Batch
from ddis.sampling.linearisation import Linearisation

if TYPE_CHECKING:
    from torch import Tensor

_log = logging.getLogger(__name__)

LEADING_MODES = 256
MOST_ITERATIONS, TYPICAL_ITERATIONS = 200, 6
SMALLEST = 1e-30  # size of a residual that is not divided by


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
        z, left = conjugate_gradients(self._apply, right, self._precondition, self._solved, MOST_ITERATIONS, axes=(-1,))
        if bool(left.any()):
            text = "%d of %d chains: conjugate gradients stopped after %d iterations, before the tolerance"
            _log.warning(text, int(left.sum()), left.numel(), MOST_ITERATIONS)
        z = z if size is None else z * size
        return self._whiten(z, transposed=True), self._weighted(z).reshape(*residual.shape[:2], -1)

    def _solved(self, residual: Tensor, rho: Tensor, start: Tensor) -> Tensor:
        return ~(residual.square().mean(dim=-1, keepdim=True) > self.tolerance**2)

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
