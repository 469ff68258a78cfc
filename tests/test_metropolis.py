"""Metropolis moves of `ddis-gn`: their densities; a Gaussian prior, for which all are accepted; what they are worth elsewhere.

The mixture is that of tests/test_mixture.py, 16 x 16 nodes, with values that leave its smoothness open.
"""

from dataclasses import astuple, replace

import numpy as np
import pytest
import torch
from batches import method_of
from mixture_gap import SEED, compare, make_posterior, samples

from ddis.errors import InputError
from ddis.models.denoiser import GaussianDenoiser
from ddis.pde import make_problem
from ddis.posterior import Posterior
from ddis.randomness import generator
from ddis.sampling.covariance import AverageSpectrum
from ddis.sampling.gauss_newton import DenseUpdate, chain_log_densities
from ddis.sampling.metropolis import MetropolisStep

SIZE, OBSERVED, FIELDS, NOISE = 16, 20, 4, 0.5


@pytest.fixture(scope="module")
def posterior() -> Posterior:
    torch.set_num_threads(1)
    return make_posterior(SIZE, OBSERVED, FIELDS, NOISE)


@pytest.mark.parametrize("own", [False, True], ids=["one variance", "each chain's own"])
def test_log_density_is_that_of_the_normal_distribution(own):
    rng = torch.Generator().manual_seed(SEED)
    n, samples_, m, modes = 3, 5, 4, 10
    rows, residual = (torch.randn(*s, dtype=torch.float64, generator=rng) for s in ((n, m, modes), (n, samples_, m)))
    variance = torch.rand(*([n * samples_] if own else []), modes, dtype=torch.float64, generator=rng)
    noise = torch.eye(m, dtype=torch.float64).expand(n, m, m) * 0.3
    got = chain_log_densities(rows, variance, noise, residual)
    spread = variance.expand(n * samples_, modes).reshape(n, samples_, 1, modes)
    covariance = (rows[:, None] * spread) @ rows[:, None].transpose(2, 3) + noise[:, None]
    normal = torch.distributions.MultivariateNormal(torch.zeros(m, dtype=torch.float64), covariance)
    assert torch.allclose(got, normal.log_prob(residual) + m / 2 * np.log(2 * np.pi), atol=1e-10)


def test_all_moves_of_a_gaussian_prior_are_accepted(posterior):
    """Both densities are p(y | x, x') then: equal to rounding of float32 fields."""
    made = method_of("ddis-gn", samples=4, moves=3)
    batch = posterior.batch(made, slice(None), [generator(SEED, "chain", f, k) for f in range(FIELDS) for k in range(4)])
    spectrum = batch.mixture.spectra[10]
    batch = replace(batch, spectrum=spectrum, prior=GaussianDenoiser(batch.basis, spectrum, batch.noise.spectrum(batch.basis)))
    step = MetropolisStep(batch, DenseUpdate(batch, made.prepare(batch)), AverageSpectrum(batch), 3, 0.3, ode_steps=1)
    x_t = torch.randn(len(batch.generators), 1, SIZE, SIZE)
    x0_hat = batch.free(batch.prior(x_t, torch.ones(len(x_t))))
    here = step._place(x_t, x0_hat, 1.0)
    there = step._proposed(here, 1.0)
    ratio = step._log_density(there, here.x, 1.0) - step._log_density(here, there.x, 1.0)
    assert float(ratio.abs().max()) < 1e-4
    step(x0_hat, x_t, 1.0, 0.0)
    assert step.accepted == {1.0: pytest.approx(1.0)}


def test_moves_bring_samples_of_a_mixture_to_the_exact_posterior(posterior):
    """128 samples a field, denoiser and operator exact; distances over the floor, which a second set of exact samples has.

    Expected: 0.9 to 1.2 with moves; without, and with about as many evaluations, 1.1 to 1.2, and 2.2 of the spectrum.
    """
    reference = samples(posterior, "exact")
    floor, without, moved = (
        np.array(astuple(compare(samples(posterior, name, "other", **settings), reference)))
        for name, settings in (
            ("exact", {}),
            ("ddis-gn", {"covariance": "denoiser", "steps": 30}),
            ("ddis-gn", {"covariance": "denoiser", "moves": 5}),
        )
    )
    assert np.all(moved < 1.3 * floor)
    assert without[4] > 1.5 * floor[4]


@pytest.mark.parametrize(
    ("pde", "settings"),
    [
        ("darcy", {}),
        ("poisson", {"solver": "matrix-free"}),
        ("poisson", {"operator": "corrected"}),
        ("poisson", {"iterations": 2}),
    ],
)
def test_moves_without_a_shared_jacobian_are_refused(pde, settings):
    with pytest.raises(InputError, match="moves: 2; accepted: 0"):
        method_of("ddis-gn", moves=2, **settings).check(make_problem(pde, {}, SIZE), SIZE)


def test_cost_counts_moves_at_their_levels(posterior):
    """Ten levels from 10 to 0.01, six of them above 0.3."""
    made = method_of("ddis-gn", samples=2, moves=3, covariance="denoiser")
    cost = posterior.batch(made, slice(0, 1), [generator(SEED, "chain", 0, k) for k in range(2)])
    *_, _ = made.sample(cost, made.prepare(cost))
    assert made.settings.all_moves == 18
    assert cost.cost.prior == 2 * (10 + 18) * 3
