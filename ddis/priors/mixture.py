"""The prior of a problem whose free coefficient is a known mixture of Gaussian fields, in closed form."""

import torch

from ddis.errors import InputError
from ddis.fields.noise import Noise
from ddis.models.denoiser import SIGMA_DATA, MixtureDenoiser
from ddis.models.normalisation import Normalisation
from ddis.pde.base import Problem
from ddis.priors.base import Prior
from ddis.priors.gaussian import default_noise


def mixture(problem: Problem, noise: Noise | None = None, coefficient: Normalisation | None = None) -> Prior:
    """The distribution of the problem's free coefficient, where that is a mixture of Gaussian fields with independent modes.

    coefficient: normalisation, of mean 0; None: that of the mixture. Raises InputError where there is no closed form.
    """
    assert problem.resolution is not None
    modes, known = problem.coefficient_space(problem.resolution).grid.basis, problem.prior_mixture(problem.resolution)
    if known is None:
        raise InputError(
            f"{type(problem).__name__}: its coefficients are no mixture of Gaussian fields; accepted: a trained prior, "
            "ddis.prior.load"
        )
    coefficient = coefficient or Normalisation(0.0, float(known.spectrum.mean().sqrt()))
    normalised, noise = known.scaled(SIGMA_DATA / coefficient.std), noise or default_noise(modes)
    denoise = MixtureDenoiser(modes, normalised, noise.spectrum(modes))
    mean = torch.zeros_like(normalised.spectrum)
    return Prior(denoise, noise, coefficient, mean, normalised.spectrum, mixture=normalised)
