"""Orthonormal bases of fields on a square grid, as one matrix per axis.

A basis is an orthogonal matrix Q [S, S], one function of one axis per row; a field x [..., S, S] has the coefficients
Q x Qᵀ. Products with Q cost O(S³) per field, and at the sizes of this project (S ≤ 256) they are as fast as a fast
transform, differentiable, and run on every device. Axis convention: [..., i, j] is x = i/(S-1), y = j/(S-1)
(i/S on periodic domains).
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor


def cosine_matrix(size: int) -> np.ndarray:
    """Orthonormal DCT-II matrix [S, S] (zero-Neumann); row k is cos(π k (i + 1/2) / S), scaled."""
    k, i = np.arange(size)[:, None], np.arange(size)[None, :]
    matrix = np.sqrt(2.0 / size) * np.cos(np.pi * k * (i + 0.5) / size)
    matrix[0] /= np.sqrt(2.0)
    return matrix


def fourier_matrix(size: int) -> np.ndarray:
    """Orthonormal real Fourier matrix [S, S] (periodic); rows 1, cos, sin, cos, sin, ... with rising frequency."""
    k, i = fourier_frequencies(size)[:, None], np.arange(size)[None, :]
    phase = 2 * np.pi * k * i / size
    matrix = np.sqrt(2.0 / size) * np.where(np.arange(size)[:, None] % 2 == 1, np.cos(phase), np.sin(phase))
    matrix[0] = np.sqrt(1.0 / size)
    if size % 2 == 0:
        matrix[-1] = np.sqrt(1.0 / size) * (-1.0) ** i[0]
    return matrix


def fourier_frequencies(size: int) -> np.ndarray:
    """Frequency (whole periods per domain) of each row of `fourier_matrix`."""
    return (np.arange(size) + 1) // 2


def interpolation_matrix(size: int, finer: int) -> np.ndarray:
    """Values [finer, S] at i / finer of the Fourier series through S values at i / S (even S: highest mode a cosine)."""
    k, i = fourier_frequencies(size)[:, None], np.arange(finer)[None, :]
    phase = 2 * np.pi * k * i / finer
    functions = np.where(np.arange(size)[:, None] % 2 == 1, np.cos(phase), np.sin(phase)) * np.sqrt(2.0 / size)
    functions[0] = np.sqrt(1.0 / size)
    if size % 2 == 0:
        functions[-1] = np.sqrt(1.0 / size) * np.cos(phase[-1])
    return functions.T @ fourier_matrix(size)


def sine_matrix(size: int) -> np.ndarray:
    """Orthonormal DST-I matrix [S, S] (zero-Dirichlet) of the S interior nodes; row k is sin(π (k+1)(i+1) / (S+1)), scaled."""
    k = np.arange(1, size + 1)
    return np.sqrt(2.0 / (size + 1)) * np.sin(np.pi * np.outer(k, k) / (size + 1))


@dataclass(frozen=True)
class Basis:
    """A tensor-product orthonormal basis of fields [..., S, S].

    name         "cosine" (zero-Neumann) or "fourier" (periodic)
    matrix       Q [S, S], one basis function per row
    frequencies  [S], half periods (cosine) or periods (fourier) per domain of each row
    """

    name: str
    matrix: Tensor
    frequencies: np.ndarray

    @property
    def size(self) -> int:
        return self.matrix.shape[0]

    def forward(self, field: Tensor) -> Tensor:
        """Coefficients [..., S, S] of fields [..., S, S]."""
        q = self.matrix.to(field)
        return q @ field @ q.T

    def inverse(self, coefficients: Tensor) -> Tensor:
        """Fields [..., S, S] of coefficients [..., S, S]."""
        q = self.matrix.to(coefficients)
        return q.T @ coefficients @ q

    def variance(self, spectrum: Tensor) -> Tensor:
        """Point-wise variance [S, S] of a random field with independent coefficients of variance `spectrum` [S, S]."""
        q2 = self.matrix.to(spectrum) ** 2
        return q2.T @ spectrum @ q2


@lru_cache(maxsize=16)
def basis(name: str, size: int) -> Basis:
    """The basis `name` ("cosine" or "fourier") on S points per side, float64."""
    if name == "cosine":
        return Basis(name, torch.from_numpy(cosine_matrix(size)), np.arange(size))
    if name == "fourier":
        return Basis(name, torch.from_numpy(fourier_matrix(size)), fourier_frequencies(size))
    raise ValueError(f"basis {name!r} is unknown; accepted: cosine, fourier")
