"""`exact`: the posterior in closed form, where a is Gaussian and G linear. The limit that every method is compared with.

With J = M G, C the covariance of a and R that of the noise (Matheron's rule):

    mean = C Jᵀ (J C Jᵀ + R)⁻¹ y,     sample = a' + C Jᵀ (J C Jᵀ + R)⁻¹ (y + e' - J a'),   a' ~ N(0, C), e' ~ N(0, R)

Where a = P b is zero at some nodes (helmholtz: at the boundary), this is the posterior of the free field b, whose covariance C is
diagonal in the basis, with J = M G P; mean, samples and standard deviation are then those of P b, exactly.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from ddis.sampling.base import Method, RunSettings, State, Task
from ddis.sampling.gauss_newton import SharedJacobian, draw_observation_noise, gaussian_update


class Exact(Method):
    Settings = RunSettings
    prior = None
    uses_operator = True
    closed_form = True
    _shared: SharedJacobian

    def prepare(self, task: Task) -> None:
        self._shared = SharedJacobian(task)

    def sample(self, task: Task) -> Iterator[State]:
        observation, basis = task.observation, task.basis
        rows, covariance = self._shared(observation.index), observation.covariance.double()
        spectrum = task.spectrum.to(task.device).double()
        n = len(observation.values)
        draw = (spectrum.sqrt() * task.draw_white(basis.size, basis.size)).reshape(n, -1, basis.size**2)
        target = observation.values.double()[:, None] + draw_observation_noise(task)
        update = gaussian_update(rows, spectrum.flatten(), covariance, target - draw @ rows.transpose(1, 2))
        mean = gaussian_update(rows, spectrum.flatten(), covariance, observation.values.double()[:, None])[:, 0]

        def field(coefficients: Tensor) -> Tensor:
            return basis.inverse(coefficients.reshape(-1, basis.size, basis.size)).float()

        yield State(1, 1, 0.0, field(draw + update), field(mean), posterior_std(task, rows, spectrum))


def posterior_std(task: Task, rows: Tensor, spectrum: Tensor) -> Tensor:
    """Point-wise standard deviation [n, S, S] of the free field's posterior: the diagonal of C - C Jᵀ (J C Jᵀ + R)⁻¹ J C."""
    prior, fields = task.basis.variance(spectrum), []
    for jacobian, covariance in zip(rows, task.observation.covariance.double(), strict=True):
        weighted = jacobian * spectrum.flatten()
        root = torch.linalg.cholesky(weighted @ jacobian.T + covariance)
        explained = torch.linalg.solve_triangular(root, weighted, upper=False).reshape(-1, *spectrum.shape)
        fields.append((prior - (task.basis.inverse(explained) ** 2).sum(0)).clamp_min(0).sqrt())
    return torch.stack(fields).float()
