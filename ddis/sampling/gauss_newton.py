"""Spectral Gauss-Newton likelihood step: draws x0 ~ p(x0 | x_t, y) exactly for a Gaussian prior and a linear operator.

With prior spectrum C and noise spectrum K in the problem's basis, p(x0 | x_t) = N(x0_hat, Σ), Σ = C σ² K / (C + σ² K) per mode.
For y = M G(x) + e, e ~ N(0, R), linearised at x_0 (J the Jacobian of M G there), Matheron's rule gives

    x0 = x~ + Σ Jᵀ (J Σ Jᵀ + R)⁻¹ (y + e - M G(x_0) - J (x~ - x_0)),    x~ ~ N(x0_hat, Σ),  e ~ N(0, R),

repeated from x_0 <- x0 where G is not linear, with the same x~ and e.
"""

import torch
from torch import Tensor

from ddis.sampling.base import Task


def conditional_spectrum(spectrum: Tensor, noise_spectrum: Tensor, sigma: float) -> Tensor:
    """Σ = C σ² K / (C + σ² K), the variance of each mode of x0 given x_t; 0 where C is."""
    noise = sigma**2 * noise_spectrum
    return spectrum * noise / (spectrum + noise)


def jacobian_rows(task: Task, x: Tensor, index: Tensor, batch: int = 128) -> Tensor:
    """Rows [G, m, S, S] of the operator's Jacobian at x [G, S, S], for the nodes index [G, m], by batches of vector products."""
    groups, m = index.shape
    owner = torch.arange(groups, device=x.device).repeat_interleave(m)
    nodes = index.flatten()
    rows = []
    for start in range(0, len(nodes), batch):
        part = slice(start, start + batch)
        point = x[owner[part]].detach().requires_grad_()
        values = task.operator(point).flatten(1).gather(1, nodes[part, None])
        rows.append(torch.autograd.grad(values.sum(), point)[0])
    return torch.cat(rows).reshape(groups, m, *x.shape[1:])


class SharedJacobian:
    """The Jacobian of a (nearly) linear operator at x = 0, at every node that any field observes: computed once for all masks."""

    def __init__(self, task: Task):
        nodes = task.observation.index.unique()
        origin = torch.zeros(1, task.basis.size, task.basis.size, device=task.device)
        self.rows = task.basis.forward(jacobian_rows(task, origin, nodes[None])[0].double()).flatten(1)
        self.place = torch.full((task.basis.size**2,), -1, device=task.device)
        self.place[nodes] = torch.arange(len(nodes), device=task.device)

    def __call__(self, index: Tensor) -> Tensor:
        """Rows [n, m, S²] in the basis, for the nodes index [n, m]."""
        return self.rows[self.place[index]]


def gaussian_update(rows: Tensor, variance: Tensor, covariance: Tensor, residual: Tensor) -> Tensor:
    """Σ Jᵀ (J Σ Jᵀ + R)⁻¹ r, the correction of Matheron's rule.

    Args:
        rows: J [G, m, P] in the basis; variance: diagonal of Σ [P]; covariance: R [G, m, m]; residual: r [G, K, m].

    Returns:
        corrections [G, K, P] of the coefficients in the basis; NaN for a chain whose J is, which leaves the others alone.
    """
    weighted = rows * variance
    root, failed = torch.linalg.cholesky_ex(weighted @ rows.transpose(1, 2) + covariance)
    root = root.masked_fill(failed.bool()[:, None, None], torch.nan)
    return torch.cholesky_solve(residual.transpose(1, 2), root).transpose(1, 2) @ weighted


def draw_observation_noise(task: Task) -> Tensor:
    """Noise [n, K, m] of covariance R, one draw per chain."""
    root = torch.linalg.cholesky(task.observation.covariance.double())
    n, m = task.observation.values.shape
    return task.draw_white(m).reshape(n, -1, m) @ root.transpose(1, 2)


class GaussNewtonStep:
    """Draws x0 [B, S, S] given x0_hat [B, S, S]; float64 inside.

    Args:
        shared: the Jacobian for all fields, or None to compute it at each chain's own point, in every step.
        iterations: Gauss-Newton iterations (1 is exact for linear operators).
    """

    def __init__(self, task: Task, shared: SharedJacobian | None, iterations: int = 1):
        self.task, self.basis, self.iterations = task, task.basis, iterations
        self.spectrum = task.spectrum.to(task.device).double()
        self.noise_spectrum = task.noise.spectrum(task.basis).to(task.device).double()
        self.rows = shared(task.observation.index) if shared is not None else None

    def __call__(self, x0_hat: Tensor, sigma: float, progress: float) -> Tensor:
        variance = conditional_spectrum(self.spectrum, self.noise_spectrum, sigma)
        white = self.task.draw_white(self.basis.size, self.basis.size)
        x_tilde = self.basis.forward(x0_hat.double()) + variance.sqrt() * white
        target = self.task.observation.values.double()[:, None] + draw_observation_noise(self.task)
        point = x0_hat
        for _ in range(self.iterations):
            point = self._update(point, x_tilde, target, variance)
        return point

    def _update(self, point: Tensor, x_tilde: Tensor, target: Tensor, variance: Tensor) -> Tensor:
        """One iterate [B, S, S], linearised at `point` [B, S, S]; x_tilde [B, S, S] in the basis, target [n, K, m]."""
        rows = self.rows if self.rows is not None else self._own_rows(point)
        groups, m, modes = rows.shape
        with torch.no_grad():
            predicted = self.task.observation.take(self.task.operator(point)).double()
        shift = (x_tilde - self.basis.forward(point.double())).reshape(groups, -1, modes)
        residual = target.reshape(groups, -1, m) - predicted.reshape(groups, -1, m) - shift @ rows.transpose(1, 2)
        covariance = self.task.observation.covariance.double()
        covariance = covariance.repeat_interleave(groups // len(covariance), dim=0)
        update = gaussian_update(rows, variance.flatten(), covariance, residual)
        return self.basis.inverse(x_tilde + update.reshape(x_tilde.shape)).to(point.dtype)

    def _own_rows(self, x: Tensor) -> Tensor:
        """The Jacobian [B, m, S²] in the basis at each chain's own point x [B, S, S]."""
        index = self.task.observation.index
        index = index.repeat_interleave(len(x) // len(index), dim=0)
        return self.basis.forward(jacobian_rows(self.task, x, index).double()).flatten(2)
