"""Denoisers x0_hat = D(x_t; σ): what they are, and the closed forms of Gaussian priors and their mixtures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ddis.fields.bases import Basis
from ddis.fields.mixture import Mixture
from ddis.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

SIGMA_DATA = 0.5  # standard deviation of normalised fields


def per_field(sigma: Tensor, like: Tensor) -> Tensor:
    """sigma [B], one number for each of the fields `like` [B, ...], with as many axes."""
    return sigma.reshape(-1, *(1,) * (like.ndim - 1))


class Denoiser(Protocol):
    def __call__(self, x_t: Tensor, sigma: Tensor) -> Tensor:
        """Expected clean field x0_hat [B, C, *nodes] of the noisy normalised field x_t [B, C, *nodes] at levels sigma [B]."""


class GaussianDenoiser:
    """The optimal denoiser of a Gaussian field, mode by mode: C / (C + σ² Γ) times the noisy coefficient, about the mean.

    Args:
        basis: basis in which field and noise have independent coefficients.
        spectrum: variance C [*shape] of the (normalised) field's coefficients.
        noise_spectrum: variance Γ [*nodes] of the noise's.
        mean: [*shape] of the field; None: zero.
    """

    def __init__(self, basis: Basis, spectrum: Tensor, noise_spectrum: Tensor, mean: Tensor | None = None):
        self.basis, self.spectrum, self.noise_spectrum, self.mean = basis, spectrum, noise_spectrum, mean

    def __call__(self, x_t: Tensor, sigma: Tensor) -> Tensor:
        spectrum, noise = self.spectrum.to(x_t), self.noise_spectrum.to(x_t)
        gain = spectrum / (spectrum + per_field(sigma.to(x_t), x_t) ** 2 * noise)
        if self.mean is None:
            return self.basis.inverse(gain * self.basis.forward(x_t))
        mean = self.mean.to(x_t)
        return mean + self.basis.inverse(gain * self.basis.forward(x_t - mean))


class MixtureDenoiser:
    """The optimal denoiser of a mixture of Gaussian fields: that of each component, with its probability given x_t.

    Args:
        basis: basis in which fields and noise have independent coefficients.
        mixture: of the (normalised) field; noise_spectrum: variance Γ [*shape] of the noise's coefficients.
    """

    def __init__(self, basis: Basis, mixture: Mixture, noise_spectrum: Tensor):
        self.basis, self.mixture, self.noise_spectrum = basis, mixture, noise_spectrum

    def __call__(self, x_t: Tensor, sigma: Tensor) -> Tensor:
        levels = sigma.unique()
        if len(levels) == 1:
            return self._at(x_t, float(levels))
        chains = [self._at(x, float(s)) for x, s in zip(x_t.split(1), sigma, strict=True)]
        return torch.cat(chains)

    def _at(self, x_t: Tensor, sigma: float) -> Tensor:
        """x0_hat of fields that are all at the level sigma."""
        known, noise = self.mixture.to(x_t.device), sigma**2 * self.noise_spectrum.to(x_t.device).flatten()
        x = self.basis.forward(x_t.double()).flatten(1)
        prior = known.spectra.flatten(1)
        total = prior + noise
        likelihood = -0.5 * (x.square() @ total.reciprocal().T + total.log().sum(dim=1))
        probability = (likelihood + known.weights.log()).softmax(dim=1)
        return self.basis.inverse(((probability @ (prior / total)) * x).reshape(x_t.shape)).to(x_t)
