"""The Helmholtz equation with a Gaussian random source.

∇²u + k² u = a   in (0, 1)²,     u = 0   on the boundary
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from ddis.errors import InputError
from ddis.pde.base import SQUARE, MixtureParameters, RandomFieldProblem, Symmetry
from ddis.pde.dirichlet import extend_interior, laplacian, solve_dirichlet, zero_boundary

if TYPE_CHECKING:
    from torch import Tensor

RESONANCE = 1e-3


class HelmholtzParameters(MixtureParameters):
    """k: wave number."""

    k: float = Field(1.0, ge=0)


class Helmholtz(RandomFieldProblem):
    """∇²u + k² u = a on the unit square, u = 0 on the boundary; a is a Gaussian random field that is 0 on the boundary nodes.

    Grid: S x S nodes, boundary included, h = 1/(S-1). Solver: 5-point stencil, second order in h for smooth a, solved
    directly in the sine basis (residual at round-off). Everything is dimensionless.

    The coefficient is a = P b: b the benchmark's random field, P zero on the boundary nodes. Its covariance P C P is not diagonal
    in the cosine basis, that of b is; and G looks at interior nodes only, G(a) = G(b). So the posterior of b is that of a
    Gaussian with spectrum C, and the posterior of a is its image under P: the closed form is exact.

    Parameters: k (k ≥ 0), the wave number; alpha, tau as for poisson.
    It fails where -k² is nearly an eigenvalue of the discrete Laplacian (within 0.1 % of k²; the smallest, 2π², is met by
    k = 4.44), as one mode then drowns the others, and where h k > 1, fewer than six nodes per wavelength. Its phase error
    grows like k³ h².
    Good values: k = 1 (benchmark; std(u) = 0.0043), or k up to 0.3 / h away from resonances.
    """

    Parameters = HelmholtzParameters
    equation = "∇²u + k² u = a in (0, 1)²"
    boundary = "u = 0 (Dirichlet)"
    solver = "5-point stencil, second order in h for smooth a, solved directly in the sine basis (residual at round-off)"
    distribution = (
        "a Gaussian, zero-Neumann cosine modes of variance S² τ^(2α-2) (π²|k|² + τ²)^(-α), no mean; 0 on the boundary nodes"
    )
    coefficient_label = "source a"
    linear = True

    parameters: HelmholtzParameters

    def check(self, resolution: int) -> None:
        super().check(resolution)
        k = self.parameters.k
        if k > resolution - 1:
            raise InputError(
                f"parameter k {k:g} at resolution {resolution}: fewer than 6 nodes per wavelength; "
                f"accepted: k up to {resolution - 1}, or a higher resolution"
            )
        check_resonance(resolution, k)

    def sample_coefficients(self, indices: Sequence[int], resolution: int, seed: int) -> Tensor:
        return zero_boundary(self.parameters.sample(indices, self.coefficient_space(resolution).grid, seed))

    def solve(self, coefficient: Tensor) -> Tensor:
        check_resonance(coefficient.shape[-1], self.parameters.k)
        return solve_dirichlet(coefficient, self.parameters.k**2)

    def residual(self, coefficient: Tensor, solution: Tensor) -> Tensor:
        return laplacian(solution) + self.parameters.k**2 * solution[..., 1:-1, 1:-1] - coefficient[..., 1:-1, 1:-1]

    def symmetries(self, pairs: bool) -> frozenset[Symmetry]:
        return SQUARE

    def constrain(self, free: Tensor) -> Tensor:
        return zero_boundary(free)

    def relax(self, coefficient: Tensor) -> Tensor:
        return extend_interior(coefficient)


@lru_cache(maxsize=64)
def check_resonance(resolution: int, k: float) -> None:
    """Raises InputError if k² is within 0.1 % of an eigenvalue of -Δ_h, with the nearest k that are not."""
    modes = np.arange(1, resolution - 1)
    along = 4 * (resolution - 1) ** 2 * np.sin(np.pi * modes / (2 * (resolution - 1))) ** 2
    eigenvalues = (along[:, None] + along).ravel()

    def clear(squared: np.ndarray) -> np.ndarray:
        return np.asarray((abs(eigenvalues - squared[:, None]) > RESONANCE * squared[:, None]).all(axis=1))

    if clear(np.array([k**2])):
        return
    near = eigenvalues[abs(eigenvalues / k**2 - 1) < 0.5]
    edges = np.concatenate([near / (1 + 2 * RESONANCE), near / (1 - 2 * RESONANCE)])
    accepted = np.sqrt(edges[clear(edges)])
    around = ", ".join(f"{part:.6g}" for part in (accepted[accepted < k].max(), accepted[accepted > k].min()))
    nearest = eigenvalues[abs(eigenvalues - k**2).argmin()]
    raise InputError(
        f"parameter k {k:g} at resolution {resolution}: k² = {k**2:.6g} is within 0.1 % of the eigenvalue {nearest:.6g} of the "
        f"discrete Laplacian, so the solution is unbounded; nearest accepted values: {around}"
    )
