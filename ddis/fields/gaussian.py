"""Gaussian random fields of the benchmark: the distribution of coefficients.

    a = DCT-II⁻¹( S τ^(α-1) (π²|k|² + τ²)^(-α/2) ξ ),   ξ white, coefficient (0, 0) = 0

on S points per side with the orthonormal transform (REFERENCE: DiffusionPDE benchmark, α = 2, τ = 3, point-wise standard
deviation 0.292).
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ddis.fields.bases import basis
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
