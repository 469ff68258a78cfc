"""A learnt model of the predictions, as a function of the coefficient, and chains of it that propose to those of the solver.

Where a = A(g) has jumps, predictions are no smooth function of g, but of a they are. With x the leading modes of the relaxed
coefficient, centred and damped like 1 / (1 + |k|²)^½, ridge regression over visited states gives

    M G(a) ≈ F*(a) = F̄ + Σ_i s_i x_i + Σ_(i ≤ j) s_ij x_i x_j,     products of the first few modes alone

which costs a small part of a solve; A itself is evaluated, not learnt. With Φ* the negative log-likelihood of F*, a number of
Metropolis steps that leave e^(-β Φ*) N(0, I) invariant lead from z to z', which is accepted with

    min(1, e^(β (Φ(z) - Φ(z')) - β (Φ*(z) - Φ*(z'))))

The steps are reversible, so that this leaves e^(-β Φ) N(0, I) invariant however wrong F* is (Liu, Monte Carlo Strategies in
Scientific Computing, 2001, section 9.4.3; Christen and Fox, J. Comput. Graph. Stat. 14, 795, 2005).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from ddis.references.latent import Latent
from ddis.references.proposal import Proposal

Noise: TypeAlias = Iterable[tuple[Tensor, Tensor]]  # of steps, one after the other

SQUARED = 24  # modes of the coefficient whose products count
RIDGE = 5e-6  # of the regression, for x of mean square 1, per state


@dataclass(frozen=True)
class Surrogate:
    """Of n fields: F* [n, M, m] = level + `terms` · slope; centre, weight [n, K], slope [n, F, m], level [n, m]."""

    centre: Tensor
    weight: Tensor
    slope: Tensor
    level: Tensor

    @classmethod
    def empty(cls, fields: int, modes: int, values: int) -> "Surrogate":
        terms = modes + min(modes, SQUARED) * (min(modes, SQUARED) + 1) // 2
        sizes = ((modes,), (modes,), (terms, values), (values,))
        return cls(*(torch.zeros(fields, *size, dtype=torch.float64) for size in sizes))

    @classmethod
    def fitted(cls, latent: Latent, features: Tensor, predicted: Tensor) -> "Surrogate":
        """From the features [n, M, K] and predictions [n, M, m] of M states of each field."""
        centre, level = features.mean(dim=1), predicted.mean(dim=1)
        damping = latent.leading[1].expand_as(centre)
        size = ((features - centre[:, None]) * damping[:, None]).square().sum(dim=2).mean(dim=1, keepdim=True).sqrt()
        weight = damping / size.clamp_min(torch.finfo(torch.float64).tiny)
        terms = products((features - centre[:, None]) * weight[:, None])
        gram = terms.transpose(1, 2) @ terms + RIDGE * terms.shape[1] * torch.eye(terms.shape[2], dtype=terms.dtype)
        slope = torch.cholesky_solve(terms.transpose(1, 2) @ (predicted - level[:, None]), torch.linalg.cholesky(gram))
        return cls(centre, weight, slope, level)

    def single(self) -> "Surrogate":
        """In single precision."""
        return Surrogate(*(part.float() for part in vars(self).values()))

    def __call__(self, features: Tensor) -> Tensor:
        """Predictions [n, M, m] for features [n, M, K]."""
        terms = products((features - self.centre[:, None]) * self.weight[:, None])
        return self.level[:, None] + terms @ self.slope


def products(x: Tensor) -> Tensor:
    """x [n, M, K] and the products of its first entries [n, M, F], scaled so that T·T' = (1 + x·x')² - 1 if they were all."""
    first = x[..., :SQUARED]
    rows, columns = torch.triu_indices(first.shape[-1], first.shape[-1])
    scale = torch.where(rows == columns, 1.0, 2**0.5).to(x)
    return torch.cat([2**0.5 * x, first[..., rows] * first[..., columns] * scale], dim=-1)


def walk(
    latent: Latent, surrogate: Surrogate, proposal: Proposal, z: Tensor, power: Tensor, size: Tensor, noise: Noise
) -> tuple[Tensor, Tensor, Tensor]:
    """Metropolis steps from z [n, N, P] under e^(-β Φ*) N(0, I), proposed with steps b about the proposal.

    power, size: β and b [n]; noise: of each step standard normal [n, N, P], float32, and uniform [n, N] numbers. In single
    precision inside: Φ* is learnt anyway.
    Returns where they end, β (Φ* there - Φ* of z) [n, N], and the mean chance of acceptance [n].
    """

    def energy(white: Tensor) -> tuple[Tensor, Tensor]:
        """β Φ* and log N(μ, Σ) / N(0, I), [n, N] each."""
        z = proposal.field(white)
        predicted = surrogate(latent.features(latent.coefficient(z).float()))
        return power[:, None] * latent.misfit(predicted), proposal.excess(z, white)

    proposal, surrogate = Proposal(proposal.mean.float(), proposal.root.float()), surrogate.single()
    b = size[:, None, None].float()
    kept, white = (1 - b**2).sqrt(), proposal.white(z.float())
    before, excess = energy(white)
    begin, chances = before, []
    for xi, uniform in noise:
        moved = kept * white + b * xi
        after, other = energy(moved)
        chance = (before - after + excess - other).exp().clamp_max(1)
        accept = uniform < chance
        white = torch.where(accept[..., None], moved, white)
        before, excess = torch.where(accept, after, before), torch.where(accept, other, excess)
        chances.append(chance.mean(dim=1))
    return proposal.field(white).double(), before - begin, torch.stack(chances).mean(dim=0)
