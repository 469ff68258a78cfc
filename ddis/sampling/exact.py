"""`exact`: the posterior in closed form, where a is Gaussian and G linear. The limit that every method is compared with.

With J = M G, C the covariance of a, of mean 0 and R that of the noise (Matheron's rule):

    mean = C Jᵀ (J C Jᵀ + R)⁻¹ y,     sample = a' + C Jᵀ (J C Jᵀ + R)⁻¹ (y + e' - J a'),   a' ~ N(0, C), e' ~ N(0, R)

Where a = P b is zero at some nodes (helmholtz: at the boundary), this is the posterior of the free field b, whose covariance C is
diagonal in the basis, with J = M G P; mean, samples and standard deviation are then those of P b, exactly.

If b is a mixture of Gaussian fields of spectra C_j with probabilities p_j, the posterior is a mixture too, of these closed forms,
with probabilities that are proportional to p_j N(y; 0, J C_j Jᵀ + R).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ddis.fields.mixture import Mixture
from ddis.lazy import torch
from ddis.sampling.base import Batch, Evaluations, Method, RunSettings, Size, State
from ddis.sampling.gauss_newton import SharedJacobian, chain_updates, draw_observation_noise, gauss_newton_cost, gaussian_update

if TYPE_CHECKING:
    from torch import Tensor

NEGLIGIBLE = 1e-6  # probability of a component that mean and variance leave out


class Exact(Method[RunSettings]):
    prior = None
    uses_operator = True
    closed_form = True

    def cost(self, size: Size) -> Evaluations:
        return gauss_newton_cost(size, 0, True, self.settings)

    def prepare(self, batch: Batch) -> SharedJacobian:
        return SharedJacobian(batch)

    def sample(self, batch: Batch, prepared: SharedJacobian) -> Iterator[State]:
        observation, basis = batch.observation, batch.basis
        rows, covariance = prepared(observation.index), observation.covariance.double()
        centre = basis.forward(batch.prior_mean).flatten()
        values = observation.values.double() - prepared.at_origin(observation.index) - rows @ centre
        white, noise = batch.draw_white(*batch.shape), draw_observation_noise(batch)
        spectrum = batch.spectrum.to(batch.device).double()
        mixture = batch.mixture or Mixture(torch.ones(1, dtype=torch.float64), spectrum[None])
        mixture = mixture.to(batch.device)
        probability = evidence(rows, mixture, covariance, values)
        variance = spectrum if batch.mixture is None else mixture.spectra[drawn_components(probability, batch)]
        draw = (variance.sqrt() * white).reshape(len(values), -1, len(centre))
        update = chain_updates(rows, variance, covariance, values[:, None] + noise - draw @ rows.transpose(1, 2))
        mean, spread = moments(batch, rows, mixture, probability, values)

        def field(coefficients: Tensor) -> Tensor:
            return basis.inverse((centre + coefficients).reshape(-1, *batch.shape)).float()

        yield State(1, 1, 0.0, field(draw + update), field(mean), spread)


def evidence(rows: Tensor, mixture: Mixture, covariance: Tensor, values: Tensor) -> Tensor:
    """Probabilities [n, J] of the components given values [n, m], with rows [n, m, P] and R [n, m, m]."""
    likelihood = torch.empty(len(values), len(mixture.weights), dtype=torch.float64, device=values.device)
    if len(mixture.weights) == 1:
        return torch.ones_like(likelihood)
    for j, spectrum in enumerate(mixture.spectra):
        root = torch.linalg.cholesky((rows * spectrum.flatten()) @ rows.transpose(1, 2) + covariance)
        white = torch.linalg.solve_triangular(root, values[:, :, None], upper=False)[..., 0]
        likelihood[:, j] = -0.5 * white.square().sum(dim=1) - root.diagonal(dim1=1, dim2=2).log().sum(dim=1)
    return (likelihood + mixture.weights.log()).softmax(dim=1)


def drawn_components(probability: Tensor, batch: Batch) -> Tensor:
    """One component [B] for every chain, drawn from its field's probabilities [n, J]."""
    uniform = torch.tensor([[rng.random()] for rng in batch.generators], dtype=torch.float64, device=batch.device)
    cumulated = probability.cumsum(dim=1).repeat_interleave(len(uniform) // len(probability), dim=0)
    return torch.searchsorted(cumulated, uniform * cumulated[:, -1:])[:, 0].clamp_max(probability.shape[1] - 1)


def moments(batch: Batch, rows: Tensor, mixture: Mixture, probability: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [n, P] of the modes, and point-wise standard deviation [n, *shape] of the free field's posterior."""
    means, spreads = [], []
    for jacobian, covariance, chances, y in zip(rows, batch.observation.covariance.double(), probability, values, strict=True):
        kept = chances > NEGLIGIBLE
        weights, spectra = chances[kept] / chances[kept].sum(), mixture.spectra[kept]
        own = torch.cat([gaussian_update(jacobian[None], c.flatten(), covariance[None], y[None, None])[0] for c in spectra])
        within = torch.stack([posterior_variance(batch, jacobian, covariance, c) for c in spectra])
        mean = weights @ own
        apart = batch.basis.inverse((own - mean).reshape(-1, *batch.shape)).square()
        means.append(mean)
        spreads.append(torch.tensordot(weights, within + apart, 1).sqrt().float())
    return torch.stack(means), torch.stack(spreads)


def posterior_variance(batch: Batch, jacobian: Tensor, covariance: Tensor, spectrum: Tensor) -> Tensor:
    """Point-wise variance [*shape] of one field's posterior: the diagonal of C - C Jᵀ (J C Jᵀ + R)⁻¹ J C."""
    weighted = jacobian * spectrum.flatten()
    root = torch.linalg.cholesky(weighted @ jacobian.T + covariance)
    explained = torch.linalg.solve_triangular(root, weighted, upper=False).reshape(-1, *spectrum.shape)
    return (batch.basis.variance(spectrum) - (batch.basis.inverse(explained) ** 2).sum(0)).clamp_min(0)
