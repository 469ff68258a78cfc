"""Gaussian priors: of the problem's own distribution in closed form, or of given coefficients."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from ddis.errors import InputError
from ddis.fields.bases import Basis
from ddis.fields.noise import Noise, make_noise
from ddis.models.denoiser import GaussianDenoiser
from ddis.models.normalisation import Normalisation
from ddis.pde.base import Problem
from ddis.priors.base import Prior


def default_noise(modes: Basis) -> Noise:
    """Neighbouring nodes of a 32 x 32 grid correlate by 0.2, as published for 128 x 128 nodes."""
    return make_noise(modes, "exponential", 0.02, 1e-4, True)


def gaussian(problem: Problem, noise: Noise | None = None, coefficient: Normalisation | None = None) -> Prior:
    """The distribution of the problem's free coefficient, where that is Gaussian with independent modes.

    coefficient: normalisation, of mean 0; None: that of the spectrum. Raises InputError where there is no closed form.
    """
    assert problem.resolution is not None
    space, spectrum = problem.coefficient_space(problem.resolution), problem.prior_spectrum(problem.resolution)
    if spectrum is None:
        raise InputError(
            f"{type(problem).__name__}: its coefficients are not Gaussian; accepted: a trained prior, ddis.prior.load, or "
            "ddis.prior.mixture where alpha or tau is a range"
        )
    if coefficient is None:
        own = spectrum.flatten(-len(space.grid.shape)).mean(dim=-1).sqrt()
        std = own.item() if space.channels == 1 else own.reshape(-1, *(1,) * len(space.grid.shape)).tolist()
        coefficient = Normalisation(0.0, std)
    return of_spectrum(space.grid.basis, torch.zeros_like(spectrum), spectrum * (1 / coefficient.unit) ** 2, coefficient, noise)


def of_spectrum(modes: Basis, mean: Tensor, spectrum: Tensor, coefficient: Normalisation, noise: Noise | None = None) -> Prior:
    """The Gaussian with this mean [*shape] and variance [*shape] of the modes, normalised."""
    noise = noise or default_noise(modes)
    denoise = GaussianDenoiser(modes, spectrum, noise.spectrum(modes), mean if bool(mean.any()) else None)
    return Prior(denoise, noise, coefficient, mean, spectrum)


def moments(parts: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and variance [...] over all rows of the parts [N, ...], float64, without having them in memory at once."""
    count, total, squares = 0, torch.zeros(()), torch.zeros(())
    for part in parts:
        count, total, squares = count + len(part), total + part.sum(dim=0), squares + part.square().sum(dim=0)
    mean = total / count
    return mean, (squares / count - mean**2).clamp_min(0) * (count / max(1, count - 1))


def empirical(
    problem: Problem, parts: Callable[[], Iterable[Tensor]], coefficient: Normalisation, noise: Noise | None = None
) -> Prior:
    """The Gaussian with mean and spectrum of given coefficients, parts [N, *shape] of them."""
    first = next(iter(parts()))
    modes = problem.coefficient_space(first.shape[-1]).grid.basis
    mean, variance = moments(modes.forward(coefficient.normalise(problem.relax(part.double()))) for part in parts())
    return of_spectrum(modes, modes.inverse(mean), variance, coefficient, noise)
