"""Noise of the diffusion: white, or a stationary Gaussian random field.

The published kernel (FunDPS, arXiv 2505.17004; DDIS, arXiv 2601.23280) is exp(-d / L) with L = 0.005 on the unit square,
plus a nugget of 1e-4 on the diagonal. On any grid it is sampled without a covariance matrix, in one of two ways:

- `RandomFieldNoise`: circulant embedding. White noise on a torus of 2 S points along each bounded axis is filtered with the
  square root of the kernel's Fourier transform and cropped; the distribution is exact, at O(S² log S) per field.
- `DiagonalNoise`: independent coefficients in the cosine (or Fourier) basis with the variances that the stationary kernel has
  there. On a bounded domain a stationary kernel is only nearly diagonal in the cosine basis; this noise is exactly so,
  which the spectral likelihood step needs. Point-wise variance is 1 on average over the grid in both.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ddis.fields.bases import Basis, along_axes
from ddis.fields.bases import basis as make_basis
from ddis.grid import Grid, square
from ddis.lazy import torch
from ddis.randomness import Generators, white_noise

if TYPE_CHECKING:
    from torch import Tensor


class Noise(Protocol):
    def sample(self, shape: tuple[int, ...], generators: Generators, device: torch.device | str = "cpu") -> Tensor:
        """Noise [B, C, *shape of the grid] (`shape`), float32; row b depends on generators[b] alone.

        White noise is drawn on the CPU, so that it is the same everywhere, and filtered on the device.
        """

    def white(self, shape: tuple[int, ...], generators: Generators, device: torch.device | str = "cpu") -> Tensor:
        """Standard normal numbers [B, C, *extent], float32, that `colour` makes noise of `shape` of."""

    def colour(self, white: Tensor) -> Tensor:
        """The noise [B, C, *shape of the grid] of such numbers, linear in them."""

    def spectrum(self, basis: Basis) -> Tensor:
        """Variance Γ [*shape] of the coefficients in `basis`, float64."""

    def resized(self, size: int) -> Noise:
        """The same noise on another number of nodes per side."""


class WhiteNoise:
    """Independent standard normal values at the nodes."""

    def sample(self, shape: tuple[int, ...], generators: Generators, device: torch.device | str = "cpu") -> Tensor:
        return self.white(shape, generators, device)

    def white(self, shape: tuple[int, ...], generators: Generators, device: torch.device | str = "cpu") -> Tensor:
        return torch.from_numpy(white_noise(shape[1:], generators)).to(device)

    def colour(self, white: Tensor) -> Tensor:
        return white

    def spectrum(self, basis: Basis) -> Tensor:
        return torch.ones(basis.shape, dtype=torch.float64)

    def resized(self, size: int) -> WhiteNoise:
        return self


class RandomFieldNoise:
    """Stationary noise with covariance exp(-d/length) (or exp(-d²/(2 length²))) + nugget δ, by circulant embedding.

    kernel   "exponential" or "gaussian"; length in the grid's units; along periodic axes distances are those on the circle.
    Raises ValueError if the embedding is not positive semi-definite (a length too large for the domain).
    """

    def __init__(self, grid: Grid, kernel: str, length: float, nugget: float = 1e-4):
        self.grid, self.kernel, self.length, self.nugget = grid, kernel, length, nugget
        self._edges = tuple(size if wraps else 2 * size for size, wraps in zip(grid.shape, grid.periodic, strict=True))
        self._axes = tuple(range(-len(grid.shape), 0))
        self._eigenvalues = self._embedding()

    def covariance(self, *lags: np.ndarray) -> np.ndarray:
        """Covariance at displacements, in nodes, along each axis; arrays that broadcast."""
        step, parts = self.grid.spacing[0], []
        for lag, size, own, wraps in zip(lags, self.grid.shape, self.grid.spacing, self.grid.periodic, strict=True):
            parts.append((own / step) * (np.minimum(abs(lag) % size, size - abs(lag) % size) if wraps else lag))
        distance = step * (np.abs(parts[0]) if len(parts) == 1 else np.hypot(*parts))
        smooth = (
            np.exp(-distance / self.length) if self.kernel == "exponential" else np.exp(-(distance**2) / (2 * self.length**2))
        )
        return np.asarray((smooth + self.nugget * (distance == 0)) / (1 + self.nugget))

    def _embedding(self) -> np.ndarray:
        """The kernel's Fourier transform on the torus."""
        lags = [np.minimum(np.arange(edge), edge - np.arange(edge)) for edge in self._edges]
        eigenvalues = np.fft.rfftn(self.covariance(*np.ix_(*lags))).real
        if eigenvalues.min() < -1e-6 * eigenvalues.max():
            raise ValueError(
                f"noise.length {self.length} is too large for circulant embedding on {self.grid} points; "
                "accepted: lengths up to about a quarter of the domain"
            )
        return np.asarray(eigenvalues)

    @cached_property
    def _filter(self) -> Tensor:
        return torch.from_numpy(np.sqrt(np.maximum(self._eigenvalues, 0.0))).float()

    def sample(self, shape: tuple[int, ...], generators: Generators, device: torch.device | str = "cpu") -> Tensor:
        return self.colour(self.white(shape, generators, device))

    def white(self, shape: tuple[int, ...], generators: Generators, device: torch.device | str = "cpu") -> Tensor:
        return torch.from_numpy(white_noise((*shape[1 : -len(self._axes)], *self._edges), generators)).to(device)

    def colour(self, white: Tensor) -> Tensor:
        filtered = self._filter.to(white.device) * torch.fft.rfftn(white, dim=self._axes)
        torus = torch.fft.irfftn(filtered, s=self._edges, dim=self._axes)
        return torus[(..., *map(slice, self.grid.shape))].contiguous()

    def spectrum(self, basis: Basis) -> Tensor:
        """Diagonal of the covariance in `basis`: Γ = A c Aᵀ, with A the autocorrelation of each basis function of an axis."""
        lags = [np.arange(-(size - 1), size) for size in basis.shape]
        correlations = []
        for size, matrix, lag in zip(basis.shape, basis.matrices, lags, strict=True):
            padded = np.zeros((size, 2 * size))
            padded[:, :size] = matrix.numpy()
            correlation = np.fft.irfft(np.abs(np.fft.rfft(padded, axis=1)) ** 2, n=2 * size, axis=1)
            correlations.append(correlation[:, lag % (2 * size)])
        return torch.from_numpy(np.maximum(along_axes(correlations, self.covariance(*np.ix_(*lags))), 0.0))

    def resized(self, size: int) -> RandomFieldNoise:
        return RandomFieldNoise(square(size, self.grid.periodic[0]), self.kernel, self.length, self.nugget)


class DiagonalNoise:
    """Noise with independent coefficients in `basis`, of the variances that `stationary` has there."""

    def __init__(self, stationary: RandomFieldNoise, basis: Basis):
        self.stationary, self.basis = stationary, basis

    @cached_property
    def _spectrum(self) -> Tensor:
        return self.stationary.spectrum(self.basis)

    @cached_property
    def _root(self) -> Tensor:
        return self._spectrum.sqrt().float()

    def sample(self, shape: tuple[int, ...], generators: Generators, device: torch.device | str = "cpu") -> Tensor:
        return self.colour(self.white(shape, generators, device))

    def white(self, shape: tuple[int, ...], generators: Generators, device: torch.device | str = "cpu") -> Tensor:
        return torch.from_numpy(white_noise(shape[1:], generators)).to(device)

    def colour(self, white: Tensor) -> Tensor:
        return self.basis.inverse(self._root.to(white.device) * white)

    def spectrum(self, basis: Basis) -> Tensor:
        if basis.names != self.basis.names:
            raise ValueError(f"noise is diagonal in the basis {self.basis.names}, not in {basis.names}")
        return self._spectrum

    def resized(self, size: int) -> DiagonalNoise:
        return DiagonalNoise(self.stationary.resized(size), make_basis(self.basis.names[0], size))


def make_noise(basis: Basis, kernel: str, length: float, nugget: float, diagonal: bool) -> Noise:
    """The noise that the settings `noise: {kernel, length, nugget, diagonal}` describe, on the grid of a basis."""
    if kernel == "white":
        return WhiteNoise()
    grid = Grid(basis.shape, tuple(name == "fourier" for name in basis.names), basis.lengths)
    stationary = RandomFieldNoise(grid, kernel, length, nugget)
    return DiagonalNoise(stationary, basis) if diagonal else stationary
