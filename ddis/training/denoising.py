"""Training of denoisers: denoising score matching with random-field noise.

Loss (EDM, eq. 8): mean over fields and nodes of λ(σ) (D(x + σ n; σ) - x)², ln σ normal; λ is the network's, 1 / c_out².
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ddis.fields.bases import Basis
from ddis.fields.noise import Noise
from ddis.models.denoiser import Denoiser, GaussianDenoiser, per_field
from ddis.randomness import Generators, generator
from ddis.training import noisy
from ddis.training.augmentation import Augmentation
from ddis.training.noisy import VALIDATION_DRAWS

SIGMAS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)  # levels of `quality`


def denoising_loss(denoiser: nn.Module, x: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
    """Scalar loss of a batch: x, noise [B, C, *nodes], sigma [B]."""
    error = denoiser(x + per_field(sigma, x) * noise, sigma) - x
    weight: Tensor = denoiser.loss_weight(sigma, x)  # type: ignore[operator]
    return (weight * error**2).mean()


def training_loss(
    model: nn.Module,
    data: Tensor,
    noise: Noise,
    log_sigma: tuple[float, float],
    seed: int,
    first: int = 0,
    augmentation: Augmentation | None = None,
) -> Callable[[np.ndarray, int], Tensor]:
    """The loss of a step on normalised fields `data` [N, C, *nodes], see `noisy.training_loss`."""

    def levels(generators: Generators) -> np.ndarray:
        normal = np.array([rng.standard_normal() for rng in generators])
        return np.asarray(np.exp(log_sigma[0] + log_sigma[1] * normal))

    return noisy.training_loss(denoising_loss, model, data, noise, levels, seed, "diffusion", first, augmentation)


def validation_loss(
    data: Tensor, noise: Noise, log_sigma: tuple[float, float], seed: int, fields: int = VALIDATION_DRAWS, batch: int = 64
) -> Callable[[nn.Module], float]:
    """Loss on `fields` draws from the first of the validation fields, the same at every call; levels: the quantiles of ln σ."""
    normal = torch.distributions.Normal(0.0, 1.0).icdf((torch.arange(fields) + 0.5) / fields).numpy()
    return noisy.validation_loss(denoising_loss, data, noise, np.exp(log_sigma[0] + log_sigma[1] * normal), seed, batch)


@torch.no_grad()
def denoising_errors(
    denoisers: Sequence[Denoiser], data: Tensor, noise: Noise, sigmas: Sequence[float], seed: int, batch: int = 64
) -> np.ndarray:
    """Mean squared error per node [len(sigmas), len(denoisers)] of several denoisers on the same noisy fields."""
    totals = np.zeros((len(sigmas), len(denoisers)))
    for row, level in enumerate(sigmas):
        for start in range(0, len(data), batch):
            x = data[start : start + batch]
            generators = [generator(seed, "denoising-error", row, start + place) for place in range(len(x))]
            sigma = torch.full((len(x),), float(level), device=x.device)
            x_t = x + level * noise.sample(tuple(x.shape), generators, x.device).to(x)
            totals[row] += [float(((d(x_t, sigma) - x) ** 2).mean(dtype=torch.float64)) * len(x) for d in denoisers]
    return totals / len(data)


def quality(denoiser: nn.Module, data: Tensor, spectrum: Tensor, basis: Basis, noise: Noise, seed: int) -> list[dict[str, float]]:
    """Mean squared error per node on normalised fields [N, C, *nodes], by noise level, beside that of the optimal denoiser.

    The optimal one is that of a Gaussian with this spectrum, or where the fields are not Gaussian the best linear one.
    """
    optimal = GaussianDenoiser(basis, spectrum, noise.spectrum(basis))
    errors = denoising_errors([denoiser, optimal], data, noise, SIGMAS, seed)
    return [
        {"sigma": s, "error": float(own), "optimal_error": float(best), "excess": float(own / best - 1)}
        for s, (own, best) in zip(SIGMAS, errors, strict=True)
    ]
