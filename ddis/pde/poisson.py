"""Poisson's equation with a Gaussian random source.

∇²u = a   in (0, L) x (0, 1),     u = 0   on the boundary
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from ddis.errors import InputError
from ddis.grid import Grid, Space
from ddis.pde.base import SQUARE, MixtureParameters, RandomFieldProblem, Symmetry
from ddis.pde.dirichlet import Lengths, laplacian, solve_dirichlet

if TYPE_CHECKING:
    from torch import Tensor


class PoissonParameters(MixtureParameters):
    """aspect: L, the length of the domain along x."""

    # Left out where it is 1, so that data sets of the square keep the parameters that stand in their files.
    aspect: float = Field(1.0, gt=0, exclude_if=lambda aspect: aspect == 1)


class Poisson(RandomFieldProblem):
    """∇²u = a on a rectangle, by default the unit square, u = 0 on the boundary; a is the benchmark's Gaussian random field.

    Grid: L S x S nodes, boundary included, h = 1/(S-1) along y and L/(L S - 1) along x; a is used at the interior nodes. Solver:
    5-point stencil, second order in h for smooth a, solved directly in the sine basis (residual at round-off). Everything is
    dimensionless.

    Parameters: alpha (α > 1) and tau (τ > 0), smoothness and inverse length scale of the random field, or ranges [low, high] of
    which every field draws its own, so that the coefficient is a mixture of Gaussian fields; aspect, L.
    It fails for S < 4 only; at α near 1 the field is rough at every scale, and the order of convergence drops.
    Good values: S from 16 to 256; α = 2, τ = 3 (benchmark) gives std(a) = 0.292 and std(u) = 0.0042 on the square.
    """

    Parameters = PoissonParameters
    boundary = "u = 0 (Dirichlet)"
    solver = "5-point stencil, second order in h for smooth a, solved directly in the sine basis (residual at round-off)"
    coefficient_label = "source a"
    linear = True

    parameters: PoissonParameters

    @property
    def equation(self) -> str:  # type: ignore[override]
        return "∇²u = a in (0, 1)²" if self.parameters.aspect == 1 else f"∇²u = a in (0, {self.parameters.aspect:g}) x (0, 1)"

    @property
    def distribution(self) -> str:  # type: ignore[override]
        law = "S² τ^(2α-2) (π²|k|² + τ²)^(-α)" if self.parameters.aspect == 1 else "N τ^(2α-2) (|κ|² + τ²)^(-α) / L"
        return f"a Gaussian, zero-Neumann cosine modes of variance {law}, no mean"

    @property
    def lengths(self) -> Lengths:
        return self.parameters.aspect, 1.0

    def coefficient_space(self, resolution: int) -> Space:
        return Space(Grid((round(self.parameters.aspect * resolution), resolution), (False, False), self.lengths))

    def check(self, resolution: int) -> None:
        super().check(resolution)
        if round(self.parameters.aspect * resolution) < self.minimum_resolution:
            raise InputError(f"aspect {self.parameters.aspect:g} at resolution {resolution}: fewer than 4 nodes along x")

    def sample_coefficients(self, indices: Sequence[int], resolution: int, seed: int) -> Tensor:
        return self.parameters.sample(indices, self.coefficient_space(resolution).grid, seed)

    def solve(self, coefficient: Tensor) -> Tensor:
        return solve_dirichlet(coefficient, lengths=self.lengths)

    def symmetries(self, pairs: bool) -> frozenset[Symmetry]:
        return SQUARE if self.parameters.aspect == 1 else frozenset({"flips"})

    def residual(self, coefficient: Tensor, solution: Tensor) -> Tensor:
        return laplacian(solution, self.lengths) - coefficient[..., 1:-1, 1:-1]
