"""`exact`: the posterior in closed form, where a is Gaussian and G linear. The limit that every method is compared with.

With J = M G, C the covariance of a, of mean 0 and R that of the noise (Matheron's rule):

    mean = C Jᵀ (J C Jᵀ + R)⁻¹ y,     sample = a' + C Jᵀ (J C Jᵀ + R)⁻¹ (y + e' - J a'),   a' ~ N(0, C), e' ~ N(0, R)

Where a = P b is zero at some nodes (helmholtz: at the boundary), this is the posterior of the free field b, whose covariance C is
diagonal in the basis, with J = M G P; mean, samples and standard deviation are then those of P b, exactly.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from ddis.sampling.base import Batch, Evaluations, Method, RunSettings, Size, State
from ddis.sampling.gauss_newton import SharedJacobian, draw_observation_noise, gauss_newton_cost, gaussian_update


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
        spectrum = batch.spectrum.to(batch.device).double()
        n = len(observation.values)
        centre = basis.forward(batch.prior_mean).flatten()
        draw = (spectrum.sqrt() * batch.draw_white(*batch.shape)).reshape(n, -1, len(centre))
        values = observation.values.double() - prepared.at_origin(observation.index) - rows @ centre
        target = values[:, None] + draw_observation_noise(batch)
        update = gaussian_update(rows, spectrum.flatten(), covariance, target - draw @ rows.transpose(1, 2))
        mean = gaussian_update(rows, spectrum.flatten(), covariance, values[:, None])[:, 0]

        def field(coefficients: Tensor) -> Tensor:
            return basis.inverse((centre + coefficients).reshape(-1, *batch.shape)).float()

        yield State(1, 1, 0.0, field(draw + update), field(mean), posterior_std(batch, rows, spectrum))


def posterior_std(batch: Batch, rows: Tensor, spectrum: Tensor) -> Tensor:
    """Point-wise standard deviation [n, S, S] of the free field's posterior: the diagonal of C - C Jᵀ (J C Jᵀ + R)⁻¹ J C."""
    prior, fields = batch.basis.variance(spectrum), []
    for jacobian, covariance in zip(rows, batch.observation.covariance.double(), strict=True):
        weighted = jacobian * spectrum.flatten()
        root = torch.linalg.cholesky(weighted @ jacobian.T + covariance)
        explained = torch.linalg.solve_triangular(root, weighted, upper=False).reshape(-1, *spectrum.shape)
        fields.append((prior - (batch.basis.inverse(explained) ** 2).sum(0)).clamp_min(0).sqrt())
    return torch.stack(fields).float()
