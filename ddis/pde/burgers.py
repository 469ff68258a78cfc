"""Burgers' equation with a random initial condition: a line goes in, a field of space and time comes out.

∂u/∂t + ∂(u²/2)/∂x = ν ∂²u/∂x²,     u(x, 0) = a(x),     periodic in x
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from ddis.errors import InputError
from ddis.fields.gaussian import matern_spectrum, sample_gaussian
from ddis.grid import Grid, Space
from ddis.lazy import torch
from ddis.pde.base import Problem, ProblemParameters, Symmetry

if TYPE_CHECKING:
    from torch import Tensor

FASTEST = 5.0  # the speed |u| that steps are made for: eight standard deviations of the initial condition
MAXIMUM_STEPS = 10**6
COURANT, DIFFUSION = 1.0, 0.5  # dt |u| / h and dt 4ν / h²; Runge-Kutta 4 is stable up to 2.8 in either


class BurgersParameters(ProblemParameters):
    """viscosity ν, time T; alpha, tau: smoothness and inverse length scale of the initial condition, scale: its size."""

    viscosity: float = Field(0.01, gt=0)
    time: float = Field(1.0, gt=0)
    alpha: float = Field(2.0, gt=0.5)
    tau: float = Field(5.0, gt=0)
    scale: float = Field(25.0, gt=0)


class Burgers(Problem):
    """∂u/∂t + u ∂u/∂x = ν ∂²u/∂x² on the unit circle up to time T; a is u at time 0, the solution all of u(x, t).

    Grid: the coefficient is a line of S nodes, x = i/S; the solution has S x (S+1) nodes, t = j T/S, its first column is a.
    All of its nodes may be observed. Everything is dimensionless.
    Scheme: conservative differences of second order, with the flux (u² + u u' + u'²) / 6 between neighbours u and u', which
    conserves Σ u and does not make Σ u² grow. Solver: Runge-Kutta 4 with equal steps, the same for all fields: Courant number at
    most 1 for speeds up to 5, and dt 4ν/h² at most 1/2.

    a is the benchmark's: Gaussian with covariance scale² (-∂²/∂x² + τ²)^(-α), without its mean (α = 2, τ = 5, scale = 25:
    standard deviation 0.59).

    Parameters: viscosity, time, alpha, tau, scale. Speeds beyond 10, values that are not finite and more than a million
    steps raise InputError.
    It fails quietly where S is too small for the fronts, which are about 8ν / max|u| wide: from S = 32 on they are seen for
    ν = 0.01, resolved from S = 128 on. Good values: ν = 0.01 (benchmark); relative l2 errors are in docs/problems.md.
    """

    Parameters = BurgersParameters
    equation = "∂u/∂t + u ∂u/∂x = ν ∂²u/∂x², x in [0, 1), t in [0, T], a = u(x, 0)"
    boundary = "periodic in x"
    solver = "conservative differences of second order, Runge-Kutta 4"
    distribution = "a Gaussian, Fourier modes of variance S scale² (4π²k² + τ²)^(-α), no mean"
    coefficient_label = "u(x, 0)"
    solution_label = "u(x, t)"
    basis = "fourier"
    local_residual = False
    minimum_resolution = 8

    parameters: BurgersParameters

    def coefficient_space(self, resolution: int) -> Space:
        return Space(Grid((resolution,), (True,), (1.0,)))

    def solution_space(self, resolution: int) -> Space:
        lengths = (1.0, self.parameters.time)
        return Space(Grid((resolution, resolution + 1), (True, False), lengths, names=("x", "t"), free_ends=True))

    def sample_coefficients(self, indices: Sequence[int], resolution: int, seed: int) -> Tensor:
        grid = self.coefficient_space(resolution).grid
        return sample_gaussian(indices, grid, self.prior_spectrum(resolution).numpy(), seed)

    def prior_spectrum(self, resolution: int) -> Tensor:
        p = self.parameters
        return torch.from_numpy(matern_spectrum(self.coefficient_space(resolution).grid, p.alpha, p.tau, p.scale**2))

    def solve(self, coefficient: Tensor) -> Tensor:
        size, p = coefficient.shape[-1], self.parameters
        u = coefficient.double()
        fastest = u.detach().abs().amax() if u.numel() else u.new_zeros(())
        if not bool(fastest <= 2 * FASTEST):
            raise InputError(f"initial condition with values up to {fastest:.3g}; accepted: finite, up to {2 * FASTEST:g}")
        whole = p.time / size
        steps = math.ceil(whole * max(size * FASTEST / COURANT, 4 * p.viscosity * size**2 / DIFFUSION))
        if size * steps > MAXIMUM_STEPS:
            raise InputError(
                f"viscosity {p.viscosity:g} and time {p.time:g} on {size} nodes: {size * steps:,} time steps; "
                f"accepted: up to {MAXIMUM_STEPS:,}, so less of one of them"
            )
        keep, columns = torch.is_grad_enabled() and u.requires_grad, [u]
        for _ in range(size):
            arguments = (columns[-1], steps, whole / steps, p.viscosity)
            # For gradients the columns are kept and the steps between them computed again.
            columns.append(
                torch.utils.checkpoint.checkpoint(_advance, *arguments, use_reentrant=False) if keep else _advance(*arguments)
            )
        return torch.stack(columns, dim=-1).to(coefficient.dtype)

    def symmetries(self, pairs: bool) -> frozenset[Symmetry]:
        return frozenset() if pairs else frozenset({"flips", "shifts"})

    def residual(self, coefficient: Tensor, solution: Tensor) -> Tensor:
        """u - Φ(a), with Φ this solver, whose steps between the columns are not stored: 0 for its own pairs."""
        return solution - self.solve(coefficient).to(solution.dtype)


def _advance(u: Tensor, steps: int, dt: float, viscosity: float) -> Tensor:
    """Lines u [..., S] after `steps` time steps of Runge-Kutta 4."""
    for _ in range(steps):
        first = _rate(u, viscosity)
        second = _rate(u + dt / 2 * first, viscosity)
        third = _rate(u + dt / 2 * second, viscosity)
        u = u + dt / 6 * (first + 2 * (second + third) + _rate(u + dt * third, viscosity))
    return u


def _rate(u: Tensor, viscosity: float) -> Tensor:
    """∂u/∂t [..., S]: what flows in from the left minus what flows out to the right, over h."""
    size, right = u.shape[-1], u.roll(-1, -1)
    out = (u * u + u * right + right * right) / 6 - viscosity * size * (right - u)
    return size * (out.roll(1, -1) - out)
