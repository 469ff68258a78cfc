"""Poisson's equation with a Gaussian random source.

∇²u = a   in (0, 1)²,     u = 0   on the boundary
"""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from ddis.fields.bases import sine_matrix
from ddis.fields.gaussian import neumann_spectrum, sample_neumann
from ddis.pde.base import Problem, ProblemParameters


@lru_cache(maxsize=8)
def _sine_modes(interior: int) -> tuple[Tensor, Tensor]:
    """Sine matrix [M, M] of the M interior nodes per axis, and the eigenvalues [M] of the second difference."""
    k = torch.arange(1, interior + 1, dtype=torch.float64)
    eigenvalues = -4 * (interior + 1) ** 2 * torch.sin(torch.pi * k / (2 * (interior + 1))) ** 2
    return torch.from_numpy(sine_matrix(interior)), eigenvalues


def solve_dirichlet(source: Tensor, shift: float = 0.0) -> Tensor:
    """Solves (Δ_h + shift) u = source, u = 0 on the boundary nodes, with the 5-point Laplacian Δ_h, h = 1/(S-1).

    Direct, by diagonalisation in the sine basis: two products with the sine matrix there and two back.

    Args:
        source: [..., S, S]; its boundary nodes are not used.

    Returns:
        u [..., S, S], in the dtype and on the device of `source` (float64 inside).
    """
    inner = source[..., 1:-1, 1:-1].double()
    sine, eigenvalues = (t.to(inner.device) for t in _sine_modes(inner.shape[-1]))
    coefficients = (sine @ inner @ sine) / (eigenvalues[:, None] + eigenvalues[None, :] + shift)
    return torch.nn.functional.pad(sine @ coefficients @ sine, (1, 1, 1, 1)).to(source.dtype)


def laplacian(field: Tensor) -> Tensor:
    """5-point Laplacian [..., S-2, S-2] of a field [..., S, S] at the interior nodes, h = 1/(S-1)."""
    centre = field[..., 1:-1, 1:-1]
    neighbours = field[..., 2:, 1:-1] + field[..., :-2, 1:-1] + field[..., 1:-1, 2:] + field[..., 1:-1, :-2]
    return (neighbours - 4 * centre) * (field.shape[-1] - 1) ** 2


class PoissonParameters(ProblemParameters):
    """alpha, tau: smoothness and inverse length scale of the source's random field."""

    alpha: float = 2.0
    tau: float = 3.0


class Poisson(Problem):
    """∇²u = a on the unit square, u = 0 on the boundary; a is the benchmark's Gaussian random field.

    Grid: S x S nodes, boundary included, h = 1/(S-1). Solver: 5-point stencil, second order in h for smooth a, solved
    directly in the sine basis (residual at round-off). Everything is dimensionless.

    Good values: S from 16 to 256; α = 2, τ = 3 (benchmark) gives std(a) = 0.292 and std(u) = 0.0042.
    """

    Parameters = PoissonParameters
    equation = "∇²u = a in (0, 1)²"
    boundary = "u = 0 (Dirichlet)"
    distribution = "a Gaussian, zero-Neumann cosine modes of variance S² τ^(2α-2) (π²|k|² + τ²)^(-α), no mean"
    linear = True

    parameters: PoissonParameters

    def sample_coefficients(self, indices: Sequence[int], resolution: int, seed: int) -> Tensor:
        return sample_neumann(indices, resolution, seed, self.parameters.alpha, self.parameters.tau)

    def solve(self, coefficient: Tensor) -> Tensor:
        return solve_dirichlet(coefficient)

    def residual(self, coefficient: Tensor, solution: Tensor) -> Tensor:
        return laplacian(solution) - coefficient[..., 1:-1, 1:-1]

    def prior_spectrum(self, resolution: int) -> Tensor:
        return torch.from_numpy(neumann_spectrum(resolution, self.parameters.alpha, self.parameters.tau))
