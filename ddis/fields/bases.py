"""Orthonormal bases of fields on a line or a rectangle, as one matrix per axis.

A basis has an orthogonal matrix Q [S, S] for each axis, one function per row; a field x [..., S, T] has the coefficients
Q_1 x Q_2ᵀ. Products with Q cost O(S³) per field, and at the sizes of this project (S ≤ 256) they are as fast as a fast
transform, differentiable, and run on every device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ddis.lazy import torch

if TYPE_CHECKING:
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


def along_axes(matrices: Sequence[Any], field: Any) -> Any:
    """The product of fields [..., *shape] with one matrix per axis: A x for a line, A x Bᵀ for a rectangle."""
    if len(matrices) == 1:
        return field @ matrices[0].T
    return matrices[0] @ field @ matrices[1].T


@dataclass(frozen=True)
class Basis:
    """A tensor-product orthonormal basis of fields [..., *shape] on one or two axes.

    names             of each axis: "cosine" (zero-Neumann) or "fourier" (periodic)
    matrices          Q [S, S] of each axis, one basis function per row
    axis_frequencies  [S] of each axis: half periods (cosine) or periods (fourier) per domain of each row
    lengths           of the axes
    """

    names: tuple[str, ...]
    matrices: tuple[Tensor, ...]
    axis_frequencies: tuple[np.ndarray, ...]
    lengths: tuple[float, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(matrix.shape[0] for matrix in self.matrices)

    @property
    def half_periods_squared(self) -> np.ndarray:
        """Half periods per unit length of each function, squared: (|κ| / π)² with κ its wave vector, [*shape]."""
        axes = zip(self.names, self.axis_frequencies, self.lengths, strict=True)
        squared = [((2 * k if name == "fourier" else k) / length) ** 2 for name, k, length in axes]
        return squared[0] if len(squared) == 1 else squared[0][:, None] + squared[1][None, :]

    def forward(self, field: Tensor) -> Tensor:
        """Coefficients [..., *shape] of fields [..., *shape]."""
        return cast("Tensor", along_axes([q.to(field) for q in self.matrices], field))

    def inverse(self, coefficients: Tensor) -> Tensor:
        """Fields [..., *shape] of coefficients [..., *shape]."""
        return cast("Tensor", along_axes([q.to(coefficients).T for q in self.matrices], coefficients))

    def variance(self, spectrum: Tensor) -> Tensor:
        """Point-wise variance [..., *shape] of a random field with independent coefficients of variance `spectrum`."""
        return cast("Tensor", along_axes([(q.to(spectrum) ** 2).T for q in self.matrices], spectrum))


@lru_cache(maxsize=64)
def axis_functions(name: str, size: int) -> tuple[Tensor, np.ndarray]:
    """Matrix [S, S] (float64) and frequencies [S] of the functions `name` of one axis."""
    if name == "cosine":
        return torch.from_numpy(cosine_matrix(size)), np.arange(size)
    if name == "fourier":
        return torch.from_numpy(fourier_matrix(size)), fourier_frequencies(size)
    raise ValueError(f"basis {name!r} is unknown; accepted: cosine, fourier")


def basis(names: str | tuple[str, ...], shape: int | tuple[int, ...], lengths: tuple[float, ...] | None = None) -> Basis:
    """The basis of these functions on axes of `shape` nodes (one name and one size: S x S), of length 1 unless given."""
    names = (names, names) if isinstance(names, str) else names
    shape = (shape, shape) if isinstance(shape, int) else shape
    axes = [axis_functions(name, size) for name, size in zip(names, shape, strict=True)]
    return Basis(names, tuple(q for q, _ in axes), tuple(k for _, k in axes), lengths or (1.0,) * len(shape))
