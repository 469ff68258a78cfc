"""Gaussian random fields of the benchmark: the distributions of coefficients.

Zero-Neumann (poisson, helmholtz, darcy):

    a = DCT-II⁻¹( S τ^(α-1) (π²|k|² + τ²)^(-α/2) ξ ),   ξ white, coefficient (0, 0) = 0

on S points per side with the orthonormal transform (REFERENCE: DiffusionPDE benchmark, α = 2, τ = 3, point-wise standard
deviation 0.292).

Periodic (navier-stokes):

    a = Σ_{k ≠ 0} √2 τ^(α-1) (4π²|k|² + τ²)^(-α/2) (ξ1_k cos 2πk·x - ξ2_k sin 2πk·x),   ξ1, ξ2 white

over all k with |k1|, |k2| ≤ S/2 (α = 2.5, τ = 7, standard deviation 0.262). k and -k give the same functions, so each of the
orthonormal real Fourier modes has the variance of both.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ddis.fields.bases import basis, fourier_frequencies
from ddis.randomness import generator, white_noise


def neumann_spectrum(size: int, alpha: float = 2.0, tau: float = 3.0) -> np.ndarray:
    """Variance [S, S] of each coefficient in the orthonormal cosine basis, for points of unit square spacing 1/S."""
    k = np.arange(size)
    squared = np.pi**2 * (k[:, None] ** 2 + k[None, :] ** 2) + tau**2
    spectrum = size**2 * tau ** (2 * (alpha - 1)) * squared**-alpha
    spectrum[0, 0] = 0.0
    return spectrum


def sample_neumann(indices: Sequence[int], size: int, seed: int, alpha: float = 2.0, tau: float = 3.0) -> Tensor:
    """Fields [N, S, S], float64; field n depends on (seed, indices[n]) and S alone."""
    xi = white_noise((size, size), [generator(seed, "coefficient", int(i)) for i in indices], dtype=np.float64)
    return basis("cosine", size).inverse(torch.from_numpy(np.sqrt(neumann_spectrum(size, alpha, tau)) * xi))


def periodic_spectrum(size: int, alpha: float = 2.5, tau: float = 7.0) -> np.ndarray:
    """Variance [S, S] of each coefficient in the orthonormal real Fourier basis."""
    k = fourier_frequencies(size)
    squared = 4 * np.pi**2 * (k[:, None] ** 2 + k[None, :] ** 2) + tau**2
    spectrum = 2 * size**2 * tau ** (2 * (alpha - 1)) * squared**-alpha
    spectrum[0, 0] = 0.0
    return spectrum


@lru_cache(maxsize=8)
def _shell_order(size: int) -> np.ndarray:
    """Place [S²] in the flattened modes [S, S] of the first, second, ... random number: by max(row, column), then row, column."""
    row, column = np.divmod(np.arange(size**2), size)
    return np.lexsort((column, row, np.maximum(row, column)))


def sample_periodic(indices: Sequence[int], size: int, seed: int, alpha: float = 2.5, tau: float = 7.0) -> Tensor:
    """Fields [N, S, S], float64; field n depends on (seed, indices[n]) and S alone.

    A mode has the same random number at every resolution: the field with S nodes per side is the one with more nodes without
    the frequencies that S nodes cannot carry (but for the highest cosine of an even S, whose sampled norm is larger).
    """
    drawn = white_noise((size**2,), [generator(seed, "coefficient", int(i)) for i in indices], dtype=np.float64)
    xi = np.empty_like(drawn)
    xi[:, _shell_order(size)] = drawn
    root = np.sqrt(periodic_spectrum(size, alpha, tau))
    return basis("fourier", size).inverse(torch.from_numpy(root * xi.reshape(-1, size, size)))
