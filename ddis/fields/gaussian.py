"""Gaussian random fields of the benchmark: the distributions of coefficients.

On a grid of N nodes, domain of area (or length) A, with independent modes κ of the grid's basis of variance

    c(κ) = v N / A (|κ|² + τ²)^(-α),     c(0) = 0

κ = π k / L for the cosines of an axis of length L (zero-Neumann), 2π k / L for its Fourier modes (periodic); A = N h for nodes
of spacing h, and the variance of a mode does not depend on the domain. The benchmark's v, on the unit square, is τ^(2α-2) for the
cosines of poisson, helmholtz and darcy (α = 2, τ = 3: point-wise standard deviation 0.292), and twice that for navier-stokes
(α = 2.5, τ = 7: 0.262), where its sum over all k counts every function twice, for k and for -k.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from ddis.grid import Grid, square
from ddis.lazy import torch
from ddis.randomness import generator, white_noise

if TYPE_CHECKING:
    from torch import Tensor


def matern_spectrum(grid: Grid, alpha: float, tau: float, variance: float) -> np.ndarray:
    """Variance c [*shape] of each coefficient in the grid's basis; variance: v."""
    squared = np.pi**2 * grid.basis.half_periods_squared + tau**2
    spectrum = np.prod(grid.shape) / np.prod(grid.lengths) * variance * squared**-alpha
    spectrum.flat[0] = 0.0
    return np.asarray(spectrum)


def neumann_spectrum(grid: Grid | int, alpha: float = 2.0, tau: float = 3.0) -> np.ndarray:
    """The benchmark's c [*shape] on a bounded grid; a number S stands for S x S nodes of the unit square."""
    return matern_spectrum(square(grid) if isinstance(grid, int) else grid, alpha, tau, tau ** (2 * (alpha - 1)))


def periodic_spectrum(size: int, alpha: float = 2.5, tau: float = 7.0) -> np.ndarray:
    """The benchmark's c [S, S] on the periodic unit square."""
    return matern_spectrum(square(size, periodic=True), alpha, tau, 2 * tau ** (2 * (alpha - 1)))


@lru_cache(maxsize=8)
def _shell_order(shape: tuple[int, ...]) -> np.ndarray:
    """Place in the flattened modes [*shape] of the first, second, ... random number: by the largest index, then in order."""
    return np.argsort(np.indices(shape).max(axis=0).ravel(), kind="stable")


def sample_gaussian(indices: Sequence[int], grid: Grid, spectrum: np.ndarray, seed: int) -> Tensor:
    """Fields [N, (C,) *shape], float64, with independent modes of variance `spectrum` [(C,) *shape].

    Field n depends on (seed, indices[n]) and the grid alone. On periodic grids a mode has the same random number at every
    resolution: the field with S nodes per axis is the one with more nodes without the frequencies that S nodes cannot carry (but
    for the highest cosine of an even S, whose sampled norm is larger).
    """
    xi = white_noise(spectrum.shape, [generator(seed, "coefficient", int(i)) for i in indices], dtype=np.float64)
    if all(grid.periodic):
        drawn = xi.reshape(len(xi), -1, np.prod(grid.shape))
        drawn[..., _shell_order(grid.shape)] = drawn.copy()
    return grid.basis.inverse(torch.from_numpy(np.sqrt(spectrum) * xi))


def sample_neumann(indices: Sequence[int], grid: Grid | int, seed: int, alpha: float = 2.0, tau: float = 3.0) -> Tensor:
    """Fields [N, *shape], float64, of the spectrum `neumann_spectrum`."""
    grid = square(grid) if isinstance(grid, int) else grid
    return sample_gaussian(indices, grid, neumann_spectrum(grid, alpha, tau), seed)


def sample_periodic(indices: Sequence[int], size: int, seed: int, alpha: float = 2.5, tau: float = 7.0) -> Tensor:
    """Fields [N, S, S], float64, of the spectrum `periodic_spectrum`."""
    return sample_gaussian(indices, square(size, periodic=True), periodic_spectrum(size, alpha, tau), seed)
