"""Gaussian proposals that know what the data say: from the chains' own states and predictions, without derivatives.

Least squares over states (z, F = M G) that chains have visited gives F ≈ F̄ + J (z - z̄) with residuals of covariance E. For this
linear model, errors of covariance R / β + E and the prior N(0, I) the posterior is N(μ, Σ),

    Σ⁻¹ = I + Jᵀ (R / β + E)⁻¹ J,     μ = Σ Jᵀ (R / β + E)⁻¹ (y - F̄ + J z̄)

in the leading modes; the others keep N(0, I). Where G is nearly linear over the posterior, independent draws of it are nearly
posterior samples; where it is not, E is large and the proposal is wide. Steps with such a Gaussian leave it invariant instead of
the prior (generalised preconditioned Crank-Nicolson: Rudolf and Sprungk, arXiv 1504.03461).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

RIDGE = 1e-3  # of the least squares, in units of the variance of the states
STATES_PER_MODE = 4


@dataclass(frozen=True)
class Proposal:
    """N(μ, L Lᵀ) [n, r], [n, r, r] in the leading r modes of each of n fields, N(0, I) in the others."""

    mean: Tensor
    root: Tensor

    @classmethod
    def prior(cls, fields: int, modes: int) -> "Proposal":
        eye = torch.eye(modes, dtype=torch.float64)
        return cls(torch.zeros(fields, modes, dtype=torch.float64), eye.expand(fields, modes, modes).clone())

    @property
    def modes(self) -> int:
        return self.mean.shape[1]

    def white(self, z: Tensor) -> Tensor:
        """The standard normal numbers [n, K, P] that give z [n, K, P]."""
        centred = z[..., : self.modes] - self.mean[:, None]
        return torch.cat([_solve(self.root, centred), z[..., self.modes :]], dim=-1)

    def field(self, white: Tensor) -> Tensor:
        """z [n, K, P] of standard normal numbers [n, K, P]."""
        leading = self.mean[:, None] + white[..., : self.modes] @ self.root.transpose(1, 2)
        return torch.cat([leading, white[..., self.modes :]], dim=-1)

    def step(self, z: Tensor, xi: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
        """Proposed z' [n, K, P] with steps `size` [n], and log N(z) - log N(z') [n, K] against the prior.

        xi: standard normal numbers [n, K, P].
        """
        b = size[:, None, None]
        white = self.white(z)
        moved = (1 - b**2).sqrt() * white + b * xi
        proposed = self.field(moved)
        return proposed, self.excess(z, white) - self.excess(proposed, moved)

    def excess(self, z: Tensor, white: Tensor) -> Tensor:
        """log N(z; μ, Σ) - log N(z; 0, I) up to a constant: |z|²/2 - |L⁻¹(z - μ)|²/2 [n, K]."""
        return ((z[..., : self.modes] ** 2).sum(dim=-1) - (white[..., : self.modes] ** 2).sum(dim=-1)) / 2


def fitted(before: Proposal, z: Tensor, predicted: Tensor, values: Tensor, variance: Tensor) -> Proposal:
    """The proposal of states z [n, M, r] with predictions [n, M, m], for values [n, m] of error variance R / β [n, m].

    The least squares are in the coordinates of the proposal `before`, in which the states are nearly white.
    """
    modes = min(before.modes, z.shape[1] // STATES_PER_MODE)
    z_mean, predicted_mean = z.mean(dim=1, keepdim=True), predicted.mean(dim=1, keepdim=True)
    change, response = z - z_mean, predicted - predicted_mean
    white = _solve(before.root, change)[..., :modes]
    gram = white.transpose(1, 2) @ white / z.shape[1] + RIDGE * torch.eye(modes, dtype=z.dtype)
    slope = torch.linalg.solve(gram, white.transpose(1, 2) @ response / z.shape[1])
    residual = response - white @ slope
    error = torch.diag_embed(variance) + residual.transpose(1, 2) @ residual / z.shape[1]
    jacobian = torch.nn.functional.pad(slope, (0, 0, 0, before.modes - modes))
    jacobian = torch.linalg.solve_triangular(before.root.transpose(1, 2), jacobian, upper=True)  # [n, r, m]: Jᵀ
    weighted = torch.linalg.solve(error, jacobian.transpose(1, 2))
    precision = torch.eye(before.modes, dtype=z.dtype) + jacobian @ weighted
    target = values[:, None] - predicted_mean + z_mean @ jacobian
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(precision))
    mean = (target @ weighted @ inverse)[:, 0]
    return Proposal(mean, torch.linalg.cholesky((inverse + inverse.transpose(1, 2)) / 2))


def _solve(root: Tensor, rows: Tensor) -> Tensor:
    """L⁻¹ v of rows v [n, K, r]."""
    return torch.linalg.solve_triangular(root, rows.transpose(1, 2), upper=False).transpose(1, 2)
