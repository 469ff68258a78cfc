"""Darcy flow through channel sands in shale.

-∇·(a ∇u) = 1   in (0, 1)²,     u = 0   on the boundary
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from ddis.fields.gaussian import neumann_spectrum, sample_gaussian
from ddis.grid import Grid, square
from ddis.lazy import special, torch
from ddis.pde.base import Problem, RandomFieldParameters
from ddis.pde.darcy import Darcy, face_means, flux_divergence, solve_flux

if TYPE_CHECKING:
    from torch import Tensor

SMOOTHNESS = 3.0  # exponent of the spectra of geometry and meanders: Matérn fields with ν = 2


class DarcyFaciesParameters(RandomFieldParameters):
    """proportion: of sand; length, width: correlation lengths of its bodies along x and y; amplitude, meander: standard deviation
    and correlation length of the displacement along y; sand, shale: median permeabilities; scale: of their logarithms' fields.
    """

    proportion: float = Field(0.3, gt=0, lt=1)
    length: float = Field(0.5, gt=0)
    width: float = Field(0.04, gt=0)
    amplitude: float = Field(0.08, ge=0)
    meander: float = Field(0.1, gt=0)
    sand: float = Field(10.0, gt=0)
    shale: float = Field(1.0, gt=0)
    scale: float = Field(1.0, ge=0)


class DarcyFacies(Problem):
    """-∇·(a ∇u) = 1 on the unit square, u = 0 on the boundary; a is that of meandering sand bodies in shale.

    A truncated pluri-Gaussian model of two facies on warped coordinates, from four independent Gaussian fields with zero normal
    slope: geometry Z, displacement d, and a log-permeability field of each facies.

        sand where Z(x, y + amplitude d(x, y)) ≥ q,  a = sand exp(scale g);     elsewhere  a = shale exp(scale g')

    Z and d have modes of variance ∝ (1 + (π k_x ℓ_x)² + (π k_y ℓ_y)²)^(-3) without the mean, divided by their point-wise standard
    deviation (away from the boundary a Matérn covariance, ν = 2); ℓ = (length, width) of Z, (meander, meander) of d. With q the
    normal quantile of 1 - proportion a node is sand with that probability. Between nodes Z is bilinear, beyond the boundary its
    mirror image. g, g': the random field of poisson.

    Grid, scheme and solver are those of darcy, without its preconditioner for smooth a; order 1, as a has jumps.
    Free fields (see Problem): log a. Its distribution has no closed form: two populations, with edges.

    Parameters: proportion, length, width, amplitude, meander, sand, shale, scale; alpha, tau of g. It fails as darcy does.
    Good values: width from about the node spacing up (0.04 at S = 32); amplitude up to meander, beyond which bodies fold over.
    """

    Parameters = DarcyFaciesParameters
    equation = Darcy.equation
    boundary = Darcy.boundary
    solver = Darcy.solver
    coefficient_label = Darcy.coefficient_label
    solution_label = Darcy.solution_label

    parameters: DarcyFaciesParameters

    @property
    def distribution(self) -> str:  # type: ignore[override]
        p = self.parameters
        return (
            f"a = {p.sand:g} exp({p.scale:g} g) in sand, {p.shale:g} exp({p.scale:g} g') in shale; sand: the upper "
            f"{100 * p.proportion:g} % of a Gaussian field, correlation lengths {p.length:g} and {p.width:g}, displaced along y "
            f"by {p.amplitude:g} x another, correlation length {p.meander:g}; g and g' as the source of poisson"
        )

    @property
    def jumps(self) -> bool:
        return True

    def sample_coefficients(self, indices: Sequence[int], resolution: int, seed: int) -> Tensor:
        return self.from_latent(sample_gaussian(indices, square(resolution), self.latent_spectrum(resolution).numpy(), seed))

    def solve(self, coefficient: Tensor) -> Tensor:
        return solve_flux(coefficient, torch.ones_like(coefficient, dtype=torch.float64))

    def residual(self, coefficient: Tensor, solution: Tensor) -> Tensor:
        return flux_divergence(*face_means(coefficient), solution) - 1

    def constrain(self, free: Tensor) -> Tensor:
        return free.exp()

    def relax(self, coefficient: Tensor) -> Tensor:
        return coefficient.log()

    def latent_spectrum(self, resolution: int) -> Tensor:
        """Of (Z, d, scale g, scale g'), before Z and d are divided by their standard deviations: [4, S, S]."""
        p = self.parameters
        own = p.scale**2 * neumann_spectrum(resolution, p.alpha, p.tau)
        geometry = [anisotropic_spectrum(square(resolution), *axes) for axes in ((p.length, p.width), (p.meander, p.meander))]
        return torch.from_numpy(np.stack([*geometry, own, own]))

    def from_latent(self, field: Tensor) -> Tensor:
        """The permeability [..., S, S] of the four Gaussian fields [..., 4, S, S]."""
        p, z, in_sand, in_shale = self.parameters, self.geometry(field), field[..., 2, :, :], field[..., 3, :, :]
        sand = z >= special.ndtri(1 - p.proportion)
        return torch.where(sand, p.sand * in_sand.exp(), p.shale * in_shale.exp())

    def geometry(self, field: Tensor) -> Tensor:
        """Z at the displaced nodes [..., S, S], standard normal."""
        p, size = self.parameters, field.shape[-1]
        spread = _spread(size, ((p.length, p.width), (p.meander, p.meander))).to(field)
        z, displacement = (field[..., :2, :, :] / spread).unbind(-3)
        return displaced(z, p.amplitude * displacement)


def anisotropic_spectrum(grid: Grid, *lengths: float) -> np.ndarray:
    """Variance [*shape] of cosine modes ∝ (1 + Σ (κ_i ℓ_i)²)^(-3), none of the mean, for a mean point-wise variance of 1."""
    axes = zip(grid.basis.axis_frequencies, grid.lengths, lengths, strict=True)
    squares = [(np.pi * k / side * length) ** 2 for k, side, length in axes]
    spectrum = (1 + squares[0][:, None] + squares[1][None, :]) ** -SMOOTHNESS
    spectrum[0, 0] = 0.0
    return np.asarray(spectrum * spectrum.size / spectrum.sum())


@lru_cache(maxsize=8)
def _spread(size: int, lengths: tuple[tuple[float, float], ...]) -> Tensor:
    """Point-wise standard deviations [len(lengths), S, S] of fields of `anisotropic_spectrum`."""
    grid = square(size)
    return grid.basis.variance(torch.from_numpy(np.stack([anisotropic_spectrum(grid, *own) for own in lengths]))).sqrt()


def displaced(field: Tensor, displacement: Tensor) -> Tensor:
    """f(x, y + d(x, y)) [..., S, S] of fields f and displacements d on the unit square, bilinear between the nodes."""
    shape, size = field.shape, field.shape[-1]
    place = torch.linspace(-1, 1, size, dtype=field.dtype, device=field.device)
    y = (place + 2 * displacement).reshape(-1, size, size)
    points = torch.stack([y, place[:, None].expand_as(y)], dim=-1)
    found = torch.nn.functional.grid_sample(
        field.reshape(-1, 1, size, size), points, padding_mode="reflection", align_corners=True
    )
    return found.reshape(shape)
