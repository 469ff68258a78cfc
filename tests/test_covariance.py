"""Which covariance `ddis-gn` takes where it is left to the prior, and what the choice stands on."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from ddis import observe
from ddis.errors import DamagedError
from ddis.fields.noise import WhiteNoise
from ddis.models.denoiser import GaussianDenoiser
from ddis.pde import make_problem
from ddis.posterior import Posterior
from ddis.priors import Prior, empirical, gaussian, mixture
from ddis.trained import read_excess
from ddis.training.denoising import quality

SIZE = 16
RANGES = {"alpha": (1.5, 3.0), "tau": (2.0, 4.0)}


def make_posterior(pde: str, make_prior, **parameters) -> Posterior:
    """Six values of one solution, 5 % noise."""
    torch.set_num_threads(1)
    problem = make_problem(pde, parameters, SIZE)
    nodes = np.array([35, 60, 98, 140, 170, 210])
    u = problem.solve(problem.sample_coefficients([0], SIZE, 1))[0].flatten()
    return Posterior(problem, make_prior(problem), None, observe.nodes(nodes, 0.05 * float(u.std())), u[nodes].numpy())


def of_draws(problem) -> Prior:
    return empirical(problem, problem.sample_coefficients(range(64), SIZE, 2).numpy())


def chosen(posterior: Posterior, caplog) -> str:
    """The covariance whose samples `auto`, the default, gives bit for bit; the log names it."""
    caplog.set_level(logging.INFO, logger="ddis")
    drawn = {name: posterior.sample(samples=2, steps=2, covariance=name) for name in ("spectrum", "denoiser")}
    assert not caplog.messages
    own = posterior.sample(samples=2, steps=2)
    [name] = [name for name, other in drawn.items() if np.array_equal(own.samples, other.samples)]
    [message] = caplog.messages
    assert message.startswith(f"covariance of x0 given x_t: {name}, as ")
    assert own.cost.prior_evaluations == drawn[name].cost.prior_evaluations
    return name


@pytest.mark.parametrize(
    ("pde", "make_prior", "parameters", "expected"),
    [
        ("poisson", gaussian, {}, "spectrum"),
        ("poisson", mixture, RANGES, "denoiser"),
        ("poisson", of_draws, RANGES, "spectrum"),  # this prior is Gaussian, whatever the problem
        ("helmholtz", mixture, RANGES, "denoiser"),
        ("darcy", of_draws, {}, "spectrum"),
    ],
)
def test_auto_takes_the_spectrum_of_gaussian_priors_and_the_denoiser_of_mixtures(pde, make_prior, parameters, expected, caplog):
    assert chosen(make_posterior(pde, make_prior, **parameters), caplog) == expected


@pytest.mark.parametrize(("least", "expected"), [(-0.01, "spectrum"), (-0.1, "denoiser"), (-0.95, "spectrum")])
def test_auto_asks_a_trained_denoiser_that_is_better_than_the_best_linear_one_but_not_by_far(least, expected, caplog):
    posterior = make_posterior("darcy", lambda problem: replace(of_draws(problem), excess={0.1: 0.02, 0.5: least}))
    assert chosen(posterior, caplog) == expected
    assert f"the denoiser's error is {1 + least:.1%} of the best linear one's at σ = 0.5" in caplog.messages[0]


def test_a_gaussian_problem_keeps_its_spectrum_whatever_was_trained(caplog):
    """A network may know the boundary of relaxed helmholtz fields, which no spectrum does."""
    posterior = make_posterior("helmholtz", lambda problem: replace(gaussian(problem), excess={0.01: -0.5}))
    assert chosen(posterior, caplog) == "spectrum"


def test_excess_of_the_best_denoiser_is_zero_for_gaussian_fields_and_far_below_for_a_mixture():
    """256 fields; found for the mixture: -0.33 at σ = 0.05, an eighth of which would do for the choice."""
    problem = make_problem("poisson", RANGES, SIZE)
    prior, modes = mixture(problem, WhiteNoise()), problem.coefficient_space(SIZE).grid.basis
    fields = prior.coefficient.normalise(problem.sample_coefficients(range(256), SIZE, 3)).float()[:, None]
    linear = GaussianDenoiser(modes, prior.spectrum, prior.noise.spectrum(modes))
    for denoiser, low, high in ((linear, 0.0, 0.0), (prior.denoise, -0.4, -0.25)):
        levels = quality(denoiser, fields, prior.spectrum, modes, prior.noise, 0)
        assert low <= min(level["excess"] for level in levels) <= high


def test_excess_is_read_from_the_file_of_the_training(tmp_path):
    path = tmp_path / "denoising.csv"
    assert read_excess(path) is None
    path.write_text("sigma,error,optimal_error,excess\n0.01,2.0,1.0,1.0\n0.5,0.9,1.0,-0.1\n")
    assert read_excess(path) == {0.01: 1.0, 0.5: -0.1}
    path.write_text("sigma,error\n0.01,2.0\n")
    with pytest.raises(DamagedError, match=r"denoising\.csv"):
        read_excess(path)
