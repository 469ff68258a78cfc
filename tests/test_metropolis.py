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
from ddis.sampling.base import Size
from ddis.sampling.covariance import RingCovariance
from ddis.sampling.gauss_newton import DenseUpdate
from ddis.sampling.metropolis import MetropolisStep

SIZE, OBSERVED, FIELDS, NOISE = 16, 20, 4, 0.5


@pytest.fixture(scope="module")
def posterior() -> Posterior:
    torch.set_num_threads(1)
    return make_posterior(SIZE, OBSERVED, FIELDS, NOISE)


def places(posterior: Posterior, moves: int, gaussian: bool):
    """A step of four chains a field, and a place with a proposal there, at σ = 1."""
    made = method_of("ddis-gn", samples=4, moves=moves)
    batch = posterior.batch(made, slice(None), [generator(SEED, "chain", f, k) for f in range(FIELDS) for k in range(4)])
    if gaussian:
        ring = RingCovariance(batch, probes=1).ring.double()
        spectrum = torch.where(ring > 0, (1 + ring) ** -4.0, 0.0).reshape(SIZE, SIZE)
        prior = GaussianDenoiser(batch.basis, spectrum, batch.noise.spectrum(batch.basis))
        batch = replace(batch, spectrum=spectrum, prior=prior)
    covariance = RingCovariance(batch, probes=1)
    step = MetropolisStep(batch, DenseUpdate(batch, made.prepare(batch)), covariance, moves, 0.03)
    x_t = torch.randn(len(batch.generators), 1, SIZE, SIZE, generator=torch.Generator().manual_seed(SEED))
    x0_hat = batch.free(batch.prior(x_t, torch.ones(len(x_t))))
    here = step._place(x_t, x0_hat, 1.0)
    return step, x0_hat, here, step._proposed(here, 1.0)


def test_log_density_is_that_of_the_values_given_both_states(posterior):
    """By Bayes's rule for dense matrices: x0 of N(D(x), Σ(x)), x' = x0 + σ n' and y = J x0 + e are jointly normal."""
    step, _, here, there = places(posterior, 1, gaussian=False)
    noise = step.batch.noise.spectrum(step.basis).double().flatten().diag()
    for chain in (0, 5):
        field, sigma = chain // 4, step.rings.variance(here.share, 1.0)[chain].flatten().diag()
        rows, x = step.rows[field], step.basis.forward(there.x[chain].double()).flatten()
        gain = sigma @ torch.linalg.inv(sigma + noise)
        mean = here.value[chain] + rows @ gain @ (x - here.mean[chain])
        normal = torch.distributions.MultivariateNormal(mean, rows @ (sigma - gain @ sigma) @ rows.T + step.noise[field])
        expected = normal.log_prob(step.values[field, 0]) + OBSERVED / 2 * np.log(2 * np.pi)
        assert float(step._log_density(here, there.x, 1.0)[chain]) == pytest.approx(float(expected), rel=1e-6)


def test_all_moves_of_a_gaussian_prior_are_accepted(posterior):
    """Both densities are p(y | x, x') there, to the rounding of float32 fields, for a spectrum that is one number on a ring."""
    step, x0_hat, here, there = places(posterior, 3, gaussian=True)
    ratio = step._log_density(there, here.x, 1.0) - step._log_density(here, there.x, 1.0)
    assert float(ratio.abs().max()) < 1e-4
    step(x0_hat, here.x, 1.0, 0.0)
    assert step.accepted == {1.0: pytest.approx(1.0)}


def test_moves_bring_samples_of_a_mixture_to_the_exact_posterior(posterior, monkeypatch):
    """128 samples a field, denoiser and operator exact; distances over the floor, which a second set of exact samples has.

    Expected: 0.8 to 1.1; with every move accepted the spectrum is at 1.8.
    """
    reference = samples(posterior, "exact")

    def over_the_floor() -> np.ndarray:
        drawn = samples(posterior, "ddis-gn", "other", covariance="denoiser", sigma_max=3.0, moves=5)
        return np.array(astuple(compare(drawn, reference))) / floor

    floor = np.array(astuple(compare(samples(posterior, "exact", "other"), reference)))
    moved = over_the_floor()
    monkeypatch.setattr(MetropolisStep, "_log_density", lambda step, here, *_: torch.zeros(len(here.x), dtype=torch.float64))
    accepted = over_the_floor()
    assert np.all(moved < 1.25)
    assert accepted[4] > 1.5


@pytest.mark.parametrize(
    ("pde", "settings"),
    [
        ("darcy", {}),
        ("poisson", {"solver": "matrix-free"}),
        ("poisson", {"operator": "corrected"}),
        ("poisson", {"iterations": 2}),
    ],
)
def test_settings_that_moves_do_not_go_with_are_refused(pde, settings):
    with pytest.raises(InputError, match=r"moves: 2 with .*; accepted: moves: 0"):
        method_of("ddis-gn", moves=2, **settings).check(make_problem(pde, {}, SIZE), SIZE)


def test_cost_counts_moves_at_their_levels(posterior):
    """Ten levels from 10 to 0.01, nine of them above 0.03; two products each, which the estimate takes for two evaluations."""
    made = method_of("ddis-gn", samples=2, moves=3, covariance="denoiser")
    batch = posterior.batch(made, slice(0, 1), [generator(SEED, "chain", 0, k) for k in range(2)])
    *_, _ = made.sample(batch, made.prepare(batch))
    expected = made.cost(Size(observed=OBSERVED, nodes=SIZE**2, fields=1, linear=True, gaussian=False))
    assert made.settings.moves_per_chain == 27
    assert batch.cost.prior == 2 * (10 + 27) * (1 + 2) and expected.prior == (10 + 27) * (1 + 2 * 2)
    assert batch.cost.operator == 2 * expected.operator + 2 * OBSERVED and expected.operator == 11 + 27


def test_moves_that_are_not_made_are_told(posterior, caplog):
    """Of a prior of which nothing more than its spectrum is known, Σ is that of the spectrum."""
    made = method_of("ddis-gn", samples=2, moves=3)
    batch = replace(posterior.batch(made, slice(None), []), mixture=None)
    made.prepare(batch)
    assert "no Metropolis moves are made: nothing says that the prior is not Gaussian" in caplog.text
