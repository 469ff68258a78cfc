"""Mixtures of Gaussian random fields: smoothness α and inverse length τ are drawn anew for every field.

Given (α, τ) a field is Gaussian with independent modes of variance c(α, τ) (see `ddis.fields.gaussian`), so that its
distribution, α and τ uniform in their ranges, is a mixture of these. Closed forms take the integral over (α, τ) by Gauss-Legendre
quadrature.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ddis.fields.gaussian import neumann_spectrum
from ddis.grid import Grid
from ddis.lazy import torch
from ddis.randomness import generator, white_noise

if TYPE_CHECKING:
    from torch import Tensor

# One number, or the ends of the range that it is drawn from
Drawn = float | tuple[float, float]

NODES = 12  # of the quadrature in α and in τ; tests/test_mixture.py doubles them


@dataclass(frozen=True)
class Mixture:
    """Gaussian fields of mean 0 with independent modes of variance spectra [J, *shape], of probability weights [J]; float64."""

    weights: Tensor
    spectra: Tensor

    @property
    def spectrum(self) -> Tensor:
        """Variance [*shape] of the modes over all components."""
        return torch.tensordot(self.weights, self.spectra, 1)

    def scaled(self, factor: float) -> Mixture:
        """The mixture of fields times `factor`."""
        return Mixture(self.weights, self.spectra * factor**2)

    def to(self, device: torch.device) -> Mixture:
        return Mixture(self.weights.to(device), self.spectra.to(device))


def neumann_mixture(grid: Grid, alpha: Drawn, tau: Drawn, nodes: int = NODES) -> Mixture:
    """The benchmark's random fields on a bounded grid, with α and τ uniform in their ranges."""
    (alphas, p), (taus, q) = (_quadrature(value, nodes) for value in (alpha, tau))
    spectra = np.stack([neumann_spectrum(grid, a, t) for a in alphas for t in taus])
    return Mixture(torch.from_numpy(np.outer(p, q).ravel()), torch.from_numpy(spectra))


def _quadrature(value: Drawn, nodes: int) -> tuple[np.ndarray, np.ndarray]:
    if not isinstance(value, tuple):
        return np.array([value]), np.ones(1)
    place, weight = np.polynomial.legendre.leggauss(nodes)
    low, high = value
    return (low + high) / 2 + (high - low) / 2 * place, weight / 2


def sample_neumann_mixture(indices: Sequence[int], grid: Grid, seed: int, alpha: Drawn, tau: Drawn) -> Tensor:
    """Fields [N, *shape], float64; field n and its α and τ depend on (seed, indices[n]) and the grid alone."""
    xi = white_noise(grid.shape, [generator(seed, "coefficient", int(i)) for i in indices], dtype=np.float64)
    drawn = [drawn_parameters(int(i), seed, alpha, tau) for i in indices]
    spectra = np.stack([neumann_spectrum(grid, a, t) for a, t in drawn])
    return grid.basis.inverse(torch.from_numpy(np.sqrt(spectra) * xi))


def drawn_parameters(index: int, seed: int, alpha: Drawn, tau: Drawn) -> tuple[float, float]:
    """α and τ of one field."""
    rng = generator(seed, "hyperparameters", index)
    a, t = (float(rng.uniform(*value)) if isinstance(value, tuple) else value for value in (alpha, tau))
    return a, t
