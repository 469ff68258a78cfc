"""Darcy flow with an unknown conductivity and unknown sources and sinks: two coefficients.

-∇·(k ∇u) = f   in (0, 1)²,     u = 0   on the boundary
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from ddis.fields.gaussian import neumann_spectrum, sample_gaussian
from ddis.grid import Space, square
from ddis.lazy import torch
from ddis.pde.base import SQUARE, Problem, RandomFieldParameters, Symmetry
from ddis.pde.darcy import Darcy, face_means, flux_divergence, solve_flux

if TYPE_CHECKING:
    from torch import Tensor


class DarcySourceParameters(RandomFieldParameters):
    """scale: of log k; strength: of the sources, f = 1 + strength g."""

    scale: float = Field(1.0, gt=0)
    strength: float = Field(2.0, gt=0)


class DarcySource(Problem):
    """-∇·(k ∇u) = f on the unit square, u = 0 on the boundary; the coefficient has two channels, a = (k, f).

    k = exp(scale g₁) and f = 1 + strength g₂, with independent Gaussian random fields g₁ and g₂.

    Grid: S x S nodes, boundary included, h = 1/(S-1), k and f at the nodes. Scheme and solver are those of darcy: flux form with
    harmonic means on the faces, conjugate gradients in float64; order 2. Differentiable with respect to both channels.

    Free fields (see Problem): b = (log k, f - 1), Gaussian with independent channels.
    Parameters: alpha, tau as for poisson; scale, strength. It fails as darcy does.
    Good values: scale up to 3; strength 2 gives std(f) = 0.58, sources with a few sinks.
    """

    Parameters = DarcySourceParameters
    equation = "-∇·(k ∇u) = f in (0, 1)², a = (k, f)"
    boundary = "u = 0 (Dirichlet)"
    solver = Darcy.solver
    coefficient_label = "conductivity k, source f"
    solution_label = "pressure u"

    parameters: DarcySourceParameters

    @property
    def distribution(self) -> str:  # type: ignore[override]
        p = self.parameters
        law = "zero-Neumann cosine modes of variance S² τ^(2α-2) (π²|k|² + τ²)^(-α), no mean"
        return f"k = exp({p.scale:g} g), f = 1 + {p.strength:g} g'; g and g' independent, Gaussian, {law}"

    def coefficient_space(self, resolution: int) -> Space:
        return Space(square(resolution), channels=2)

    def sample_coefficients(self, indices: Sequence[int], resolution: int, seed: int) -> Tensor:
        spectrum = self.prior_spectrum(resolution).numpy()
        return self.constrain(sample_gaussian(indices, square(resolution), spectrum, seed))

    def solve(self, coefficient: Tensor) -> Tensor:
        conductivity, source = coefficient.unbind(-3)
        return solve_flux(conductivity, source, smooth=True)

    def residual(self, coefficient: Tensor, solution: Tensor) -> Tensor:
        conductivity, source = coefficient.unbind(-3)
        return flux_divergence(*face_means(conductivity), solution) - source[..., 1:-1, 1:-1]

    def symmetries(self, pairs: bool) -> frozenset[Symmetry]:
        return SQUARE

    def constrain(self, free: Tensor) -> Tensor:
        return torch.stack([free[..., 0, :, :].exp(), 1 + free[..., 1, :, :]], dim=-3)

    def relax(self, coefficient: Tensor) -> Tensor:
        return torch.stack([coefficient[..., 0, :, :].log(), coefficient[..., 1, :, :] - 1], dim=-3)

    def prior_spectrum(self, resolution: int) -> Tensor:
        p = self.parameters
        own = torch.from_numpy(neumann_spectrum(resolution, p.alpha, p.tau))
        return torch.stack([p.scale**2 * own, p.strength**2 * own])
