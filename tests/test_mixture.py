"""A prior that is not Gaussian, with everything known: each field draws the smoothness of its own random field.

The setting is that of benchmarks/mixture_gap.py, on 16 x 16 nodes with 20 observations, four fields. `exact` is held against the
definition of a mixture's posterior; `ddis-gn`, with the exact denoiser, against `exact`.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from batches import method_of
from mixture_gap import RANGES, SEED, compare, make_posterior, samples
from scipy.stats import wasserstein_distance

from ddis.errors import InputError
from ddis.evaluation.distances import distances, wasserstein
from ddis.fields.mixture import drawn_parameters, neumann_mixture
from ddis.grid import square
from ddis.models.denoiser import GaussianDenoiser, MixtureDenoiser
from ddis.pde import make_problem
from ddis.posterior import Posterior
from ddis.randomness import generator
from ddis.sampling.base import Size
from ddis.sampling.covariance import AverageSpectrum, RingCovariance

SIZE, OBSERVED, FIELDS = 16, 20, 4
LARGE = 1.0  # noise that leaves many draws of the prior plausible


@pytest.fixture(scope="module")
def posterior() -> Posterior:
    torch.set_num_threads(1)
    return make_posterior(SIZE, OBSERVED, FIELDS)


def chains(count: int):
    return [generator(SEED, "chain", f, k) for f in range(FIELDS) for k in range(count)]


def test_fields_have_the_variance_of_their_own_parameters():
    problem = make_problem("poisson", RANGES, SIZE)
    fields = problem.sample_coefficients(range(2000), SIZE, SEED)
    drawn = np.array([drawn_parameters(i, SEED, *RANGES.values()) for i in range(2000)])
    assert drawn.min(axis=0) == pytest.approx([1.5, 2.0], abs=0.01) and drawn.max(axis=0) == pytest.approx([3.0, 4.0], abs=0.01)
    power = square(SIZE).basis.forward(fields).square()
    known = problem.prior_mixture(SIZE).spectrum
    # 2,000 fields: the mean power of a ring of modes within 4 standard errors, of a mode sqrt(2 / 2000) and more.
    low = known > 0
    low[8:, :] = low[:, 8:] = False
    assert float((power.mean(dim=0)[low].sum() / known[low].sum()) - 1) == pytest.approx(0, abs=0.1)
    assert torch.equal(problem.sample_coefficients([5], SIZE, SEED)[0], fields[5])


def test_a_single_value_is_the_gaussian_field_as_before():
    single, ranged = make_problem("poisson", {"alpha": 2.0}, SIZE), make_problem("poisson", RANGES, SIZE)
    assert single.is_gaussian and not ranged.is_gaussian and ranged.has_closed_form
    known = single.prior_mixture(SIZE)
    assert torch.equal(known.spectra[0], single.prior_spectrum(SIZE))


def test_ranges_are_written_as_they_are_given(recwarn):
    parameters = make_problem("poisson", {"alpha": [1.5, 3.0]}, SIZE).parameters
    assert parameters.model_dump(mode="json") | {"alpha": [1.5, 3.0], "tau": 3.0} == parameters.model_dump(mode="json")
    assert not recwarn.list


@pytest.mark.parametrize("alpha", [[3.0, 1.5], [0.5, 2.0], [1.5, 2.0, 3.0], "1.5-3"])
def test_a_range_that_is_none_is_refused(alpha):
    with pytest.raises(InputError, match="alpha"):
        make_problem("poisson", {"alpha": alpha}, SIZE)


def test_denoiser_is_the_mean_over_components_and_that_of_a_gaussian_for_one():
    basis, noise = square(SIZE).basis, torch.ones(SIZE, SIZE, dtype=torch.float64)
    known = neumann_mixture(square(SIZE), (1.5, 3.0), 3.0, nodes=3)
    x, sigma = torch.randn(4, 1, SIZE, SIZE, dtype=torch.float64), torch.tensor([0.1, 0.1, 1.0, 5.0], dtype=torch.float64)
    got = MixtureDenoiser(basis, known, noise)(x, sigma)
    each = torch.stack([GaussianDenoiser(basis, c, noise)(x, sigma) for c in known.spectra])
    total = known.spectra[:, None] + sigma[:, None, None] ** 2
    density = torch.distributions.Normal(0.0, total.sqrt()).log_prob(basis.forward(x[:, 0])).sum(dim=(2, 3))
    weights = (density + known.weights.log()[:, None]).softmax(dim=0)
    assert torch.allclose(got, (weights[:, :, None, None, None] * each).sum(dim=0), atol=1e-10)
    one = neumann_mixture(square(SIZE), 2.0, 3.0)
    assert torch.allclose(
        MixtureDenoiser(basis, one, noise)(x, sigma), GaussianDenoiser(basis, one.spectra[0], noise)(x, sigma), atol=1e-10
    )


def test_ring_covariance_of_a_gaussian_is_the_mean_of_its_modes_over_the_ring(posterior):
    """∂D/∂x is diagonal there, so that one product with signs gives it exactly."""
    made = method_of("ddis-gn", samples=1)
    batch = posterior.batch(made, slice(None), chains(1))
    spectrum = batch.mixture.spectra[10]
    batch = replace(batch, spectrum=spectrum, prior=GaussianDenoiser(batch.basis, spectrum, batch.noise.spectrum(batch.basis)))
    x_t, before = torch.randn(FIELDS, 1, SIZE, SIZE), batch.cost.prior
    got = RingCovariance(batch, probes=1)(x_t, 0.7)
    assert batch.cost.prior - before == FIELDS  # a call of this denoiser is not counted, the product is
    exact = AverageSpectrum(batch)(x_t, 0.7)
    ring = RingCovariance(batch, probes=1).ring
    for number in (1, 4, 9):
        inside = (ring == number).reshape(SIZE, SIZE)
        assert torch.allclose(got[:, inside], exact[inside].mean().expand(FIELDS, int(inside.sum())), rtol=1e-4)
    assert float(got[:, 0, 0].abs().max()) == 0


def test_exact_posterior_is_that_of_importance_weighted_prior_draws(posterior):
    """200,000 prior draws, noise of twice the spread of solutions: mean within 0.05 of the spread, the spread within 0.1."""
    made = method_of("exact", samples=1)
    batch = posterior.batch(made, slice(0, 1), chains(1)[:1])
    rows = made.prepare(batch)(batch.observation.index)[0]
    variance = torch.full_like(batch.observation.variance, LARGE**2)
    noisy = replace(batch, observation=replace(batch.observation, variance=variance))
    *_, last = made.sample(noisy, made.prepare(noisy))
    rng = torch.Generator().manual_seed(SEED)
    component = torch.multinomial(batch.mixture.weights, 200_000, replacement=True, generator=rng)
    modes = torch.randn(200_000, SIZE**2, dtype=torch.float64, generator=rng) * batch.mixture.spectra.flatten(1)[component].sqrt()
    misfit = (modes @ rows.T - batch.observation.values[0].double()).square().sum(dim=1)
    weights = (-0.5 * misfit / LARGE**2).softmax(dim=0)
    assert float(1 / weights.square().sum()) > 1000  # effective number of draws
    mean = batch.basis.inverse((weights @ modes).reshape(SIZE, SIZE))
    spread = batch.basis.inverse(modes.reshape(-1, SIZE, SIZE)[:20_000])
    assert last.mean is not None and last.std is not None
    assert float((mean - last.mean[0]).norm() / last.std[0].norm()) < 0.05
    variance = torch.tensordot(weights[:20_000] / weights[:20_000].sum(), (spread - mean).square(), 1)
    assert float((variance.sqrt() - last.std[0]).norm() / last.std[0].norm()) < 0.1


def test_twice_the_nodes_of_the_quadrature_move_nothing(posterior):
    made = method_of("exact", samples=1)
    finals = []
    for nodes in (12, 24):
        known = neumann_mixture(square(SIZE), RANGES["alpha"], RANGES["tau"], nodes)
        known = known.scaled(0.5 / posterior.coefficient.std)
        batch = replace(posterior.batch(made, slice(None), chains(1)), mixture=known, spectrum=known.spectrum)
        *_, last = made.sample(batch, made.prepare(batch))
        finals.append(last)
    for name in ("mean", "std"):
        coarse, fine = (getattr(final, name) for final in finals)
        assert float((coarse - fine).norm() / fine.norm()) < 1e-3, name


def test_gauss_newton_with_the_denoisers_covariance_is_near_the_floor_and_with_one_spectrum_is_not(posterior):
    """128 samples of four fields, thirty levels; found, in units of the floor: std 1.22 and 3.1, MMD 1.10 and 1.8."""
    reference = samples(posterior, "exact")
    floor = compare(samples(posterior, "exact", "other"), reference)
    own = compare(samples(posterior, "ddis-gn", "other", covariance="denoiser", probes=8, steps=30), reference)
    one = compare(samples(posterior, "ddis-gn", "other", covariance="spectrum", steps=30), reference)
    assert own.std < 1.5 * floor.std and own.mmd < 1.25 * floor.mmd and own.swd < 1.4 * floor.swd
    assert one.std > 2.5 * floor.std and one.mmd > 1.6 * floor.mmd


def test_chains_with_a_covariance_of_their_own_are_drawn_alike_by_rows_and_by_products(posterior):
    """Two fields with three chains: the state after one level, to the tolerance of the conjugate gradients."""
    settings = {"covariance": "denoiser", "steps": 1, "sigma_max": 0.5, "tolerance": 1e-8, "samples": 3}
    finals = []
    for chosen in ("dense", "matrix-free"):
        made = method_of("ddis-gn", solver=chosen, **settings)
        batch = posterior.batch(made, slice(0, 2), chains(3)[:6])
        *_, last = made.sample(batch, made.prepare(batch))
        finals.append(last.x0)
    assert torch.allclose(*finals, atol=1e-4)


def test_one_evaluation_serves_the_mean_and_its_covariance(posterior, monkeypatch):
    """4 levels with 2 products: 4 (1 + 2) evaluations, and what 4 more would give, bit for bit; 4 (3 + 3) with an ODE."""

    def drawn(ode_steps: int):
        made = method_of("ddis-gn", covariance="denoiser", steps=4, samples=3, ode_steps=ode_steps)
        batch = posterior.batch(made, slice(None), chains(3))
        *_, last = made.sample(batch, made.prepare(batch))
        told = made.cost(Size(OBSERVED, SIZE**2, FIELDS, True, False)).prior
        return last.x0, batch.cost.prior / len(batch.generators), told - 4 * 2  # a product is told as two evaluations

    ours, ode = drawn(1), drawn(2)
    monkeypatch.setattr(RingCovariance, "denoise", lambda self, x_t, sigma: self.batch.prior(x_t, sigma))
    apart = drawn(1)
    assert torch.equal(ours[0], apart[0]) and apart[1] == 16
    assert ours[1:] == (12, 12) and ode[1:] == (24, 24)


def test_distances_know_what_they_measure():
    """Closed forms: a shifted copy, twice the spread, weights that stand for repeated samples; 0 for a copy."""
    rng = np.random.default_rng(SEED)
    x = rng.standard_normal((64, SIZE, SIZE))
    assert max(vars(distances(x, x)).values()) < 1e-7
    shifted = distances(x + 3.0, x)
    assert shifted.mean == pytest.approx(3 * SIZE / np.linalg.norm(x.mean(axis=0))) and shifted.std == pytest.approx(0, abs=1e-12)
    wide = distances(x.mean(axis=0) + 2 * (x - x.mean(axis=0)), x)
    assert wide.mean == pytest.approx(0, abs=1e-12) and wide.std == pytest.approx(1)
    weights = np.arange(1, 65)
    repeated, weighted = distances(x[:8], np.repeat(x, weights, axis=0)), distances(x[:8], x, weights)
    for name in ("mean", "std", "swd", "spectrum"):
        assert getattr(weighted, name) == pytest.approx(getattr(repeated, name), rel=1e-9), name


def test_discrepancy_and_spectrum_are_those_of_their_definitions():
    """Pair by pair and node by node, with unequal weights, on fields with a mean of their own: the first ring is that mean."""
    rng = np.random.default_rng(SEED)
    x, y = rng.standard_normal((5, 8, 8)), 1.2 * rng.standard_normal((7, 8, 8)) + 0.1
    v, w = np.full(5, 1 / 5), np.arange(1, 8) / 28
    width = np.median([((a - b) ** 2).sum() for a in x for b in y])

    def kernel(a, b):
        return np.mean([np.exp(-((a - b) ** 2).sum() / (s * width)) for s in (0.2, 0.5, 1, 2, 5)])

    def mean(left, p, right, q):
        return sum(p[i] * q[j] * kernel(a, b) for i, a in enumerate(left) for j, b in enumerate(right))

    def rings(fields, weights):
        found = [[] for _ in range(4)]
        for i, row in enumerate(weights @ (np.abs(np.fft.fft2(fields)) ** 2).reshape(len(fields), -1)):
            k = np.hypot(*((n + 4) % 8 - 4 for n in divmod(i, 8)))
            if k < 4:
                found[int(k)].append(row)
        return np.array([np.mean(ring) for ring in found])

    measured = distances(x, y, w)
    squared = mean(x, v, x, v) + mean(y, w, y, w) - 2 * mean(x, v, y, w)
    assert measured.mmd == pytest.approx(np.sqrt(squared), rel=1e-9)
    error = np.abs(rings(x, v) / rings(y, w) - 1)
    assert measured.spectrum == pytest.approx(np.exp(np.log(error).mean()), rel=1e-6)


def test_wasserstein_distance_is_that_of_scipy():
    rng = np.random.default_rng(SEED)
    a, b, weights = rng.standard_normal(30), rng.standard_normal(50) + 0.5, rng.random(50)
    assert wasserstein(a, b, weights / weights.sum()) == pytest.approx(wasserstein_distance(a, b, None, weights))
