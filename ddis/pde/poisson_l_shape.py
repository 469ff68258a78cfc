"""Poisson's equation on an L-shaped domain.

∇²u = a   in (0, 1)² without [1/2, 1)²,     u = 0   on the boundary
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import distance_transform_edt

from ddis.fields.gaussian import neumann_spectrum, sample_neumann
from ddis.grid import Grid, Space
from ddis.lazy import torch
from ddis.pde.base import Problem, RandomFieldParameters
from ddis.pde.dirichlet import laplacian, solve_dirichlet

if TYPE_CHECKING:
    from torch import Tensor


@lru_cache(maxsize=16)
def l_shape(size: int) -> Grid:
    """S x S nodes of the unit square without those beyond node S // 2 along both axes."""
    beyond = np.arange(size) > size // 2
    return Grid((size, size), (False, False), (1.0, 1.0), ~(beyond[:, None] & beyond[None, :]))


class PoissonLShape(Problem):
    """∇²u = a on an L-shaped domain, u = 0 on its boundary; a is the benchmark's Gaussian random field, cut to the domain.

    Grid: S x S nodes of the unit square, h = 1/(S-1); those beyond node S // 2 along both axes are not in the domain, and all
    fields are 0 there. For odd S the re-entrant corner is at (1/2, 1/2), for even S half a spacing further. a is used at the
    interior nodes. Scheme: 5-point stencil. Solver: direct, by the capacitance matrix (Buzbee, Dorr, George and Golub, SIAM J.
    Numer. Anal. 8, 1971): the source is extended by 0 and solved for on the square; sources at the re-entrant boundary
    nodes are added that make u vanish there. Their equations, about S of them, are factorised once. Residual at round-off.

    Order: second in h for smooth u; a re-entrant corner of 270° makes u behave like r^(2/3), and the order is 4/3 then.

    a = P b, with b the random field of the whole square and P zero outside the domain. As for helmholtz the spectrum of b is
    diagonal and the posterior of a is the image of that of b: the closed form is exact. `relax` fills the rest of the square with
    the value of the nearest node of the domain.

    Parameters: alpha, tau as for poisson. It fails for S < 8, where a leg is too thin. Good values: S from 16 to 256.
    """

    Parameters = RandomFieldParameters
    equation = "∇²u = a in (0, 1)² without [1/2, 1)²"
    boundary = "u = 0 (Dirichlet)"
    solver = "5-point stencil, solved directly with the capacitance matrix of the re-entrant boundary (residual at round-off)"
    distribution = (
        "a Gaussian, zero-Neumann cosine modes of the square of variance S² τ^(2α-2) (π²|k|² + τ²)^(-α), no mean; 0 outside"
    )
    coefficient_label = "source a"
    linear = True
    minimum_resolution = 8

    parameters: RandomFieldParameters

    def coefficient_space(self, resolution: int) -> Space:
        return Space(l_shape(resolution))

    def sample_coefficients(self, indices: Sequence[int], resolution: int, seed: int) -> Tensor:
        return self.constrain(sample_neumann(indices, resolution, seed, self.parameters.alpha, self.parameters.tau))

    def solve(self, coefficient: Tensor) -> Tensor:
        size = coefficient.shape[-1]
        inside, corners, capacitance = capacitance_matrix(size, coefficient.device)
        source = inside * coefficient.reshape(-1, size, size).double()
        u = solve_dirichlet(source).flatten(1)
        charges = (capacitance * u[:, None, corners]).sum(dim=-1)  # a product of matrices would round by the batch
        added = torch.zeros_like(u).index_copy(1, corners, charges).reshape(source.shape)
        solution = inside * (u.reshape(source.shape) - solve_dirichlet(added))
        return solution.reshape(coefficient.shape).to(coefficient.dtype)

    def residual(self, coefficient: Tensor, solution: Tensor) -> Tensor:
        interior = torch.from_numpy(l_shape(coefficient.shape[-1]).interior[1:-1, 1:-1]).to(coefficient.device)
        return interior * (laplacian(solution) - coefficient[..., 1:-1, 1:-1])

    def constrain(self, free: Tensor) -> Tensor:
        return free * torch.from_numpy(l_shape(free.shape[-1]).nodes).to(free)

    def relax(self, coefficient: Tensor) -> Tensor:
        row, column = distance_transform_edt(~l_shape(coefficient.shape[-1]).nodes, return_distances=False, return_indices=True)
        return coefficient[..., torch.from_numpy(row), torch.from_numpy(column)]

    def prior_spectrum(self, resolution: int) -> Tensor:
        return torch.from_numpy(neumann_spectrum(resolution, self.parameters.alpha, self.parameters.tau))


@lru_cache(maxsize=8)
def capacitance_matrix(size: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The interior nodes [S, S] (1 or 0), the m re-entrant boundary nodes (flat), and the inverse of the solver between these."""
    grid = l_shape(size)
    inner = np.zeros(grid.shape, dtype=bool)
    inner[1:-1, 1:-1] = True
    edge = torch.from_numpy(np.flatnonzero(grid.nodes & inner & ~grid.interior)).to(device)
    units = torch.zeros(len(edge), size * size, dtype=torch.float64, device=device)
    units[torch.arange(len(edge)), edge] = 1.0
    between = solve_dirichlet(units.reshape(-1, size, size)).flatten(1)[:, edge]
    inverse = torch.linalg.inv((between + between.T) / 2)
    return torch.from_numpy(grid.interior).to(device).double(), edge, inverse
