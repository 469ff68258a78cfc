"""A problem of one's own: the screened Poisson equation. See docs/own-problem.md.

-∇²u + c u = a   in (0, 1)²,     u = 0   on the boundary
"""

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from ddis.fields.bases import sine_matrix
from ddis.fields.gaussian import neumann_spectrum, sample_neumann
from ddis.pde.base import Problem, ProblemParameters


class ScreenedPoissonParameters(ProblemParameters):
    """screening: c, in units of 1/length²; alpha, tau: smoothness and inverse length scale of the source's random field."""

    screening: float = Field(100.0, ge=0)
    alpha: float = 2.0
    tau: float = 3.0


class ScreenedPoisson(Problem):
    """-∇²u + c u = a on the unit square, u = 0 on the boundary; a is a Gaussian random field.

    Grid: S x S nodes, boundary included, h = 1/(S-1). Solver: 5-point stencil, second order in h for smooth a, solved
    directly in the sine basis (residual at round-off). Everything is dimensionless.

    c = 0 is Poisson's equation with the other sign. The solution forgets sources further away than about 1/√c.
    """

    Parameters = ScreenedPoissonParameters
    equation = "-∇²u + c u = a in (0, 1)²"
    boundary = "u = 0 (Dirichlet)"
    solver = "5-point stencil, second order in h for smooth a, solved directly in the sine basis"
    distribution = "a Gaussian, zero-Neumann cosine modes of variance S² τ^(2α-2) (π²|k|² + τ²)^(-α), no mean"
    linear = True

    parameters: ScreenedPoissonParameters

    def sample_coefficients(self, indices: Sequence[int], resolution: int, seed: int) -> Tensor:
        return sample_neumann(indices, resolution, seed, self.parameters.alpha, self.parameters.tau)

    def solve(self, coefficient: Tensor) -> Tensor:
        inner = coefficient[..., 1:-1, 1:-1].double()
        size = inner.shape[-1]
        sine = torch.from_numpy(sine_matrix(size)).to(inner)
        k = torch.arange(1, size + 1).to(inner)
        eigenvalue = 4 * (size + 1) ** 2 * torch.sin(torch.pi * k / (2 * (size + 1))) ** 2  # of -d²/dx², mode by mode
        modes = (sine @ inner @ sine) / (eigenvalue[:, None] + eigenvalue[None, :] + self.parameters.screening)
        return torch.nn.functional.pad(sine @ modes @ sine, (1, 1, 1, 1)).to(coefficient.dtype)

    def residual(self, coefficient: Tensor, solution: Tensor) -> Tensor:
        u = solution[..., 1:-1, 1:-1]
        neighbours = solution[..., 2:, 1:-1] + solution[..., :-2, 1:-1] + solution[..., 1:-1, 2:] + solution[..., 1:-1, :-2]
        laplacian = (neighbours - 4 * u) * (solution.shape[-1] - 1) ** 2
        return -laplacian + self.parameters.screening * u - coefficient[..., 1:-1, 1:-1]

    def prior_spectrum(self, resolution: int) -> Tensor:
        return torch.from_numpy(neumann_spectrum(resolution, self.parameters.alpha, self.parameters.tau))
