"""Gaussian priors: of the problem's own distribution in closed form, or of given coefficients."""

from collections.abc import Callable, Iterable

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ddis.arrays import numbers
from ddis.errors import InputError
from ddis.fields.bases import Basis
from ddis.fields.noise import Noise, make_noise
from ddis.models.denoiser import GaussianDenoiser
from ddis.models.normalisation import Normalisation, normalisation
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


def empirical(problem: Problem, coefficients: ArrayLike) -> Prior:
    """The Gaussian with mean and spectrum of given coefficients [N, *shape] of the problem, in physical units.

    Raises InputError for other shapes, for fewer than two or constant ones, and for values that no coefficient has.
    """
    assert problem.resolution is not None
    given, shape = numbers("coefficients", coefficients), problem.coefficient_space(problem.resolution).shape
    if given.ndim == 0 or given.shape[1:] != shape or len(given) < 2:
        raise InputError(f"coefficients of shape {given.shape}; accepted: {('N', *shape)}, N at least 2".replace("'N'", "N"))
    free = problem.relax(torch.from_numpy(given)).flatten(1).isfinite().all(dim=1)
    if not bool(free.all()):
        raise InputError(f"coefficients: field {int((~free).nonzero()[0])} has values that no coefficient of the problem has")
    return of_parts(problem, lambda: [torch.from_numpy(given)], normalisation(problem, "free", given).without_mean)


def of_parts(
    problem: Problem, parts: Callable[[], Iterable[Tensor]], coefficient: Normalisation, noise: Noise | None = None
) -> Prior:
    """The same of coefficients that need not be in memory at once, parts [N, *shape] of them, and with this normalisation."""
    first = next(iter(parts()))
    modes = problem.coefficient_space(first.shape[-1]).grid.basis
    mean, variance = moments(modes.forward(coefficient.normalise(problem.relax(part.double()))) for part in parts())
    return of_spectrum(modes, modes.inverse(mean), variance, coefficient, noise)
