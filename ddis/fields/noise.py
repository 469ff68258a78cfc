"""Noise of the diffusion: white, or a stationary Gaussian random field.

The published kernel (FunDPS, arXiv 2505.17004; DDIS, arXiv 2601.23280) is exp(-d / L) with L = 0.005 on the unit square,
plus a nugget of 1e-4 on the diagonal. It is sampled here without a covariance matrix, in one of two ways:

- `RandomFieldNoise`: circulant embedding. White noise on a torus of E ≥ 2(S-1) points per side is filtered with the
  square root of the kernel's Fourier transform and cropped; the distribution is exact, at O(S² log S) per field.
- `DiagonalNoise`: independent coefficients in the cosine (or Fourier) basis with the variances that the stationary kernel has
  there. On a bounded domain a stationary kernel is only nearly diagonal in the cosine basis; this noise is exactly so,
  which the spectral likelihood step needs. Point-wise variance is 1 on average over the grid in both.
"""

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ddis.fields.bases import Basis
from ddis.fields.bases import basis as make_basis
from ddis.randomness import Generators, white_noise

CPU = torch.device("cpu")


class Noise(Protocol):
    def sample(self, shape: tuple[int, ...], generators: Generators, device: torch.device = CPU) -> Tensor:
        """Noise [B, C, S, S] (`shape`), float32; row b depends on generators[b] alone.

        White noise is drawn on the CPU, so that it is the same everywhere, and filtered on the device.
        """

    def spectrum(self, basis: Basis) -> Tensor:
        """Variance K [S, S] of the coefficients in `basis`, float64."""

    def resized(self, size: int) -> "Noise":
        """The same noise on another number of nodes per side."""


class WhiteNoise:
    """Independent standard normal values at the nodes."""

    def sample(self, shape: tuple[int, ...], generators: Generators, device: torch.device = CPU) -> Tensor:
        return torch.from_numpy(white_noise(shape[1:], generators)).to(device)

    def spectrum(self, basis: Basis) -> Tensor:
        return torch.ones(basis.size, basis.size, dtype=torch.float64)

    def resized(self, size: int) -> "WhiteNoise":
        return self


class RandomFieldNoise:
    """Stationary noise with covariance exp(-d/length) (or exp(-d²/(2 length²))) + nugget δ, by circulant embedding.

    kernel   "exponential" or "gaussian"; length in units of the domain's side; periodic: distances on the torus.
    Raises ValueError if the embedding is not positive semi-definite (a length too large for the domain).
    """

    def __init__(self, size: int, kernel: str, length: float, nugget: float = 1e-4, periodic: bool = False):
        self.size, self.kernel, self.length, self.nugget, self.periodic = size, kernel, length, nugget, periodic
        self._filter = self._embedding_filter()

    def covariance(self, lag: np.ndarray, lag2: np.ndarray) -> np.ndarray:
        """Covariance at displacements (in nodes) along the two axes."""
        spacing = 1.0 / self.size if self.periodic else 1.0 / (self.size - 1)
        if self.periodic:
            lag, lag2 = (np.minimum(abs(v) % self.size, self.size - abs(v) % self.size) for v in (lag, lag2))
        distance = spacing * np.hypot(lag, lag2)
        smooth = (
            np.exp(-distance / self.length) if self.kernel == "exponential" else np.exp(-(distance**2) / (2 * self.length**2))
        )
        return (smooth + self.nugget * (distance == 0)) / (1 + self.nugget)

    def _embedding_filter(self) -> Tensor:
        edge = self.size if self.periodic else 2 * self.size
        lag = np.minimum(np.arange(edge), edge - np.arange(edge))
        eigenvalues = np.fft.rfft2(self.covariance(lag[:, None], lag[None, :])).real
        if eigenvalues.min() < -1e-6 * eigenvalues.max():
            raise ValueError(
                f"noise.length {self.length} is too large for circulant embedding on {self.size} points; "
                "accepted: lengths up to about a quarter of the domain"
            )
        return torch.from_numpy(np.sqrt(np.maximum(eigenvalues, 0.0))).float()

    def sample(self, shape: tuple[int, ...], generators: Generators, device: torch.device = CPU) -> Tensor:
        edge = self.size if self.periodic else 2 * self.size
        white = torch.from_numpy(white_noise((*shape[1:-2], edge, edge), generators)).to(device)
        torus = torch.fft.irfft2(self._filter.to(device) * torch.fft.rfft2(white), s=(edge, edge))
        return torus[..., : self.size, : self.size].contiguous()

    def spectrum(self, basis: Basis) -> Tensor:
        """Diagonal of the covariance in `basis`: K = A c Aᵀ, with A the autocorrelation of each basis function."""
        size = self.size
        lags = np.arange(-(size - 1), size)
        padded = np.zeros((size, 2 * size))
        padded[:, :size] = basis.matrix.numpy()
        autocorrelation = np.fft.irfft(np.abs(np.fft.rfft(padded, axis=1)) ** 2, n=2 * size, axis=1)[:, lags % (2 * size)]
        covariance = self.covariance(lags[:, None], lags[None, :])
        return torch.from_numpy(np.maximum(autocorrelation @ covariance @ autocorrelation.T, 0.0))

    def resized(self, size: int) -> "RandomFieldNoise":
        return RandomFieldNoise(size, self.kernel, self.length, self.nugget, self.periodic)


class DiagonalNoise:
    """Noise with independent coefficients in `basis`, of the variances that `stationary` has there."""

    def __init__(self, stationary: RandomFieldNoise, basis: Basis):
        self.stationary, self.basis = stationary, basis
        self._spectrum = stationary.spectrum(basis)
        self._root = self._spectrum.sqrt().float()

    def sample(self, shape: tuple[int, ...], generators: Generators, device: torch.device = CPU) -> Tensor:
        white = torch.from_numpy(white_noise(shape[1:], generators)).to(device)
        return self.basis.inverse(self._root.to(device) * white)

    def spectrum(self, basis: Basis) -> Tensor:
        if basis.name != self.basis.name:
            raise ValueError(f"noise is diagonal in the {self.basis.name} basis, not in the {basis.name} basis")
        return self._spectrum

    def resized(self, size: int) -> "DiagonalNoise":
        return DiagonalNoise(self.stationary.resized(size), make_basis(self.basis.name, size))


def make_noise(size: int, basis: Basis, kernel: str, length: float, nugget: float, diagonal: bool) -> Noise:
    """The noise that the settings `noise: {kernel, length, nugget, diagonal}` describe, for S points per side."""
    if kernel == "white":
        return WhiteNoise()
    stationary = RandomFieldNoise(size, kernel, length, nugget, periodic=basis.name == "fourier")
    return DiagonalNoise(stationary, basis) if diagonal else stationary
