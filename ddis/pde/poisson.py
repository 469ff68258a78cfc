"""Poisson's equation with a Gaussian random source.

∇²u = a   in (0, 1)²,     u = 0   on the boundary
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ddis.fields.gaussian import neumann_spectrum, sample_neumann
from ddis.pde.base import Problem, RandomFieldParameters
from ddis.pde.dirichlet import laplacian, solve_dirichlet


class Poisson(Problem):
    """∇²u = a on the unit square, u = 0 on the boundary; a is the benchmark's Gaussian random field.

    Grid: S x S nodes, boundary included, h = 1/(S-1); a is used at the interior nodes. Solver: 5-point stencil, second order in
    h for smooth a, solved directly in the sine basis (residual at round-off). Everything is dimensionless.

    Parameters: alpha (α > 1) and tau (τ > 0), smoothness and inverse length scale of the random field.
    It fails for S < 4 only; at α near 1 the field is rough at every scale, and the order of convergence drops.
    Good values: S from 16 to 256; α = 2, τ = 3 (benchmark) gives std(a) = 0.292 and std(u) = 0.0042.
    """

    Parameters = RandomFieldParameters
    equation = "∇²u = a in (0, 1)²"
    boundary = "u = 0 (Dirichlet)"
    distribution = "a Gaussian, zero-Neumann cosine modes of variance S² τ^(2α-2) (π²|k|² + τ²)^(-α), no mean"
    coefficient_label = "source a"
    linear = True

    parameters: RandomFieldParameters

    def sample_coefficients(self, indices: Sequence[int], resolution: int, seed: int) -> Tensor:
        return sample_neumann(indices, resolution, seed, self.parameters.alpha, self.parameters.tau)

    def solve(self, coefficient: Tensor) -> Tensor:
        return solve_dirichlet(coefficient)

    def residual(self, coefficient: Tensor, solution: Tensor) -> Tensor:
        return laplacian(solution) - coefficient[..., 1:-1, 1:-1]

    def prior_spectrum(self, resolution: int) -> Tensor:
        return torch.from_numpy(neumann_spectrum(resolution, self.parameters.alpha, self.parameters.tau))
