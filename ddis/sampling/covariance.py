"""What a denoiser leaves uncertain: the covariance Σ of x0 given x_t, diagonal in the basis.

With x_t = x0 + σ n, n ~ N(0, Γ), Tweedie's formulas give mean and covariance of x0 given x_t:

    E[x0 | x_t] = D(x_t; σ),     Cov[x0 | x_t] = σ² (∂D/∂x) Γ.

For a Gaussian prior of spectrum C that is Σ = C σ² Γ / (C + σ² Γ), mode by mode and the same for all fields: `AverageSpectrum`.
Any other prior has another one at every x_t: `RingCovariance` takes the diagonal of ∂D/∂x in the basis, averaged over rings of
equal wavenumber, from a few products with random signs. The full Jacobian of a trained network is not safe: it is not quite
symmetric nor positive, and a draw adds up its errors, where the average over a ring takes them out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Literal

import numpy as np

from ddis.lazy import torch
from ddis.operators.error import rings
from ddis.randomness import white_noise
from ddis.sampling.base import Batch

if TYPE_CHECKING:
    from torch import Tensor

# (x_t [B, 1, *shape], sigma) -> Σ [*shape], or [B, *shape] of each chain
Covariance = Callable[["Tensor", float], "Tensor"]

LOCAL, LINEAR = 0.3, 0.97  # of the best linear denoiser's error; what trained ones reach is in docs/samplers.md


def suited(batch: Batch) -> tuple[Literal["spectrum", "denoiser"], str]:
    """Which Σ goes with the prior, and why: the denoiser's own where the prior is known not to be Gaussian, and that helps.

    No denoiser of a Gaussian field is better than the best linear one. A trained one that is, at any level, knows more than a
    spectrum does. Where it is better by far, as for two-valued fields, what is uncertain is local in space: the average over a
    ring was measured to be no better there than the spectrum, which costs less. Where the problem says that its coefficient is
    Gaussian, the spectrum serves whatever was trained: relaxed fields (see `Problem.relax`) have a boundary that no spectrum
    knows, and a network does.
    """
    if batch.problem.is_gaussian:
        return "spectrum", "the coefficient is Gaussian"
    if batch.mixture is not None:
        return "denoiser", f"the prior is a mixture of {len(batch.mixture.weights)} Gaussian fields"
    if not batch.excess:
        return "spectrum", "nothing says that the prior is not Gaussian"
    sigma, excess = min(batch.excess.items(), key=lambda level: level[1])
    share = 1 + excess
    limits = f"denoiser: {LOCAL:.0%} to {LINEAR:.0%}"
    why = f"the denoiser's error is {share:.1%} of the best linear one's at σ = {sigma:g}, its best ({limits})"
    return "denoiser" if LOCAL <= share < LINEAR else "spectrum", why


def conditional_spectrum(spectrum: Tensor, noise_spectrum: Tensor, sigma: float) -> Tensor:
    """Σ = C σ² Γ / (C + σ² Γ), the variance of each mode of x0 given x_t; 0 where C is, and C for σ = ∞."""
    if math.isinf(sigma):
        return spectrum
    noise = sigma**2 * noise_spectrum
    return spectrum * noise / (spectrum + noise)


class AverageSpectrum:
    """Σ [*shape] of a Gaussian prior with the spectrum of all coefficients."""

    def __init__(self, batch: Batch):
        self.spectrum = batch.spectrum.to(batch.device).double()
        self.noise_spectrum = batch.noise.spectrum(batch.basis).to(batch.device).double()

    def __call__(self, x_t: Tensor, sigma: float) -> Tensor:
        return conditional_spectrum(self.spectrum, self.noise_spectrum, sigma)


class RingCovariance:
    """Σ_k = σ² Γ_k d(|k|) of each chain, with d the mean over a ring of the diagonal of ∂D/∂x, between 0 and 1.

    Hutchinson's estimate, with v random signs of the modes: the mean over the ring of v_k [(∂D/∂x)ᵀ v]_k, whose expectation is
    that of the diagonal. A ring of n modes and p products average n p numbers.

    For σ = ∞, where there is nothing to denoise, it is the average spectrum.

    Args:
        probes: products p per level, each of which counts as one evaluation of the prior. A prior that is asked through `denoise`
            is not evaluated again for them.
    """

    def __init__(self, batch: Batch, probes: int):
        self.batch, self.basis, self.average, self.probes = batch, batch.basis, AverageSpectrum(batch), probes
        ring, members = (part.to(batch.device) for part in rings(batch.basis))
        channels = batch.spaces[0].channels  # each has rings of its own
        self.ring = torch.cat([ring + channel * len(members) for channel in range(channels)])
        self.members = members.repeat(channels)
        self.kept: tuple[Tensor, Tensor, Tensor] | None = None

    def denoise(self, x_t: Tensor, sigma: Tensor) -> Tensor:
        """The prior's denoiser; what it computed is kept for products at the same x_t."""
        x, x0_hat = self._evaluated(x_t, sigma)
        self.kept = x_t, x, x0_hat
        return x0_hat.detach()

    def _evaluated(self, x_t: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """x_t and D(x_t; σ), ready to be differentiated."""
        assert self.batch.prior is not None
        with torch.enable_grad():
            x = x_t.detach().requires_grad_()
            return x, self.batch.prior(x, sigma)

    def __call__(self, x_t: Tensor, sigma: float) -> Tensor:
        return self.average(x_t, sigma) if math.isinf(sigma) else self.variance(self.share(x_t, sigma), sigma)

    def share(self, x_t: Tensor, sigma: float) -> Tensor:
        """d [B, rings] of Σ_k = σ² Γ_k d(|k|)."""
        total = sum(self._products(x_t, sigma))
        return (total / (self.probes * self.members)).clamp(0, 1)

    def variance(self, share: Tensor, sigma: float) -> Tensor:
        """Σ [B, *shape]. A mode that the prior does not have, such as the mean of the benchmark's fields, has none."""
        own = share[:, self.ring].reshape(-1, *self.batch.shape)
        return torch.where(self.average.spectrum > 0, sigma**2 * self.average.noise_spectrum * own, 0.0)

    def _products(self, x_t: Tensor, sigma: float) -> Iterator[Tensor]:
        """Sums over the rings [B, rings] of v ⊙ (∂D/∂x)ᵀ v, for each of the probes."""
        kept, self.kept = self.kept, None
        if kept is not None and kept[0] is x_t:
            _, x, x0_hat = kept
        else:
            x, x0_hat = self._evaluated(x_t, torch.full((len(x_t),), sigma, device=x_t.device))
        for _ in range(self.probes):
            white = white_noise(self.batch.shape, self.batch.generators)
            v = torch.from_numpy(np.where(white < 0, -1.0, 1.0)).to(x.device)
            signs = self.basis.inverse(v).to(x0_hat).reshape(x.shape)
            (pulled,) = torch.autograd.grad(x0_hat, x, signs, retain_graph=True)
            self.batch.cost.prior += len(x)
            products = (v * self.basis.forward(pulled.double().reshape(v.shape))).flatten(1)
            yield torch.zeros(len(x), len(self.members), dtype=v.dtype, device=x.device).index_add_(1, self.ring, products)
