"""Moves of `ddis-gn` by noise and reverse diffusion: they leave a known posterior as it is, and take other samples there.

Poisson on 16 x 16 nodes, a Gaussian prior: denoiser, operator and posterior are exact. Seeds and expected errors are stated.
"""

import math
from dataclasses import replace

import pytest
import torch
from batches import last_state, method_of

import ddis
from ddis.errors import InputError
from ddis.observe.likelihood import negative_log
from ddis.pde import make_problem
from ddis.posterior import Posterior
from ddis.randomness import generator
from ddis.sampling.base import Batch, Size
from ddis.sampling.renoise import evaluations_from, renoise, reverse, steps_from

SIZE, OBSERVED, NOISE, CHAINS = 16, 20, 2.0, 512


@pytest.fixture(scope="module")
def posterior() -> Posterior:
    torch.set_num_threads(1)
    problem = make_problem("poisson", {}, SIZE)
    truth = problem.sample_coefficients(range(1), SIZE, seed=5)
    index = torch.randperm(SIZE**2, generator=torch.Generator().manual_seed(0))[:OBSERVED]
    values = problem.solve(truth).flatten(1)[0, index].numpy()
    sensors = ddis.observe.nodes(index.numpy(), noise=NOISE * float(values.std()))
    return Posterior(problem, ddis.prior.gaussian(problem), ddis.operator.solver(problem), sensors, values)


def batch_of(posterior: Posterior, chains: int = CHAINS) -> Batch:
    return posterior.batch(method_of("exact"), slice(None), [generator(1, "chain", number) for number in range(chains)])


def prior_samples(batch: Batch) -> torch.Tensor:
    return batch.basis.inverse(batch.spectrum.sqrt() * batch.draw_white(*batch.shape)).float()


def test_the_reverse_diffusion_of_a_gaussian_field_keeps_its_spectrum(posterior):
    """Seed 1, 512 fields: expected to within Monte Carlo error and what the steps err by (below), in each of four rings."""
    batch = batch_of(posterior)
    x = prior_samples(batch)
    for sigma in (0.3, 1.0):
        found = reverse(batch, x[:, None] + sigma * batch.draw_noise(), sigma, steps_from(sigma))
        modes = batch.basis.forward(found.double()).square().mean(dim=0)
        for ring in range(1, 5):
            inside = torch.from_numpy((batch.basis.half_periods_squared**0.5).round() == ring)
            assert float(modes[inside].sum() / batch.spectrum[inside].sum()) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(("sigma", "most"), [(0.3, 1.06), (1.0, 1.07), (4.0, 1.09)])
def test_the_steps_make_modes_too_large_by_some_percent_and_the_smallest_too_small(posterior, sigma, most):
    """Fields of one white mode of variance C, whose variance through linear steps is found from 200,000 of them; seed 0."""
    rng = torch.Generator().manual_seed(0)

    def normal(channels: int = 1) -> torch.Tensor:
        return torch.randn(200_000, channels, 1, 1, generator=rng, dtype=torch.float64)

    for variance, low, high in ((1e-3, 0.8, 0.9), (0.01, 1.04, most + 0.015), (1.0, 0.985, most + 0.015), (100.0, 0.985, 1.015)):

        def optimal(x: torch.Tensor, level: torch.Tensor, variance: float = variance) -> torch.Tensor:
            return variance / (variance + float(level[0]) ** 2) * x

        batch = replace(batch_of(posterior, 1), prior=optimal)
        batch.free, batch.draw_noise = (lambda x: x[:, 0]), normal  # type: ignore[method-assign]
        found = reverse(batch, variance**0.5 * normal() + sigma * normal(), sigma, steps_from(sigma))
        assert low < float(found.var()) / variance < high


def after(batch: Batch, x: torch.Tensor, moves: int, levels: tuple[float, ...]) -> torch.Tensor:
    *_, (_, last) = renoise(batch, x, moves, levels)
    return last


def moments(x: torch.Tensor, posterior: Posterior) -> tuple[torch.Tensor, torch.Tensor]:
    fields = posterior.physical(x).double()
    return fields.mean(dim=0), fields.std(dim=0)


def distances(x: torch.Tensor, posterior: Posterior) -> tuple[float, float]:
    """Of mean and standard deviation from the exact ones, relative to the norm of the latter."""
    state = last_state(batch_of(posterior, 1), "exact")
    (mean,), (std,) = posterior.closed_form(state.mean, state.std)
    own_mean, own_std = moments(x, posterior)
    return float((own_mean - mean).norm() / std.norm()), float((own_std - std).norm() / std.norm())


def test_moves_take_samples_of_the_prior_to_the_exact_posterior(posterior):
    """Seed 1, 512 chains: exact samples have 1 / sqrt(512) = 0.044 and about 0.03; samples of the prior 0.69 and 0.45."""
    batch = batch_of(posterior)
    x = prior_samples(batch)
    far = distances(x, posterior)
    x = after(batch, x, 40, (1.0, 3.0))
    near = distances(x, posterior)
    assert far[0] > 0.5 and far[1] > 0.4
    assert near[0] < 0.09 and near[1] < 0.08


def test_moves_leave_exact_samples_as_they_are(posterior):
    batch = batch_of(posterior)
    exact = last_state(batch, "exact").x0.float()
    x = after(batch, exact, 6, (0.3, 0.7, 1.0))
    moved = float((x - exact).norm() / exact.norm())
    mean, std = distances(x, posterior)
    assert moved > 0.1
    assert mean < 0.09 and std < 0.07


def test_a_field_that_the_operator_refuses_is_never_taken_and_soon_left(posterior):
    """A solver that has no answer where the field's mean is negative."""
    batch = batch_of(posterior, 32)

    def half(x: torch.Tensor) -> torch.Tensor:
        negative = x.mean(dim=(1, 2), keepdim=True) < 0
        return torch.where(negative, torch.nan, posterior.predict(x, None))

    x = prior_samples(batch)
    assert bool((x.mean(dim=(1, 2)) < 0).any())
    x = after(replace(batch, operator=half), x, 30, (1.0, 3.0))
    assert bool((x.mean(dim=(1, 2)) >= 0).all())


def test_the_likelihood_is_that_of_what_is_asked(posterior):
    """Gaussian with R, by torch's multivariate normal; the kernel, by its formula, with the variance that R was made of."""
    batch = batch_of(posterior, 3)
    predicted = torch.randn(3, OBSERVED, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    seen = batch.observation
    normal = torch.distributions.MultivariateNormal(seen.values[0], seen.covariance[0])
    expected = -normal.log_prob(predicted)
    found = seen.negative_log_likelihood(predicted)
    torch.testing.assert_close(found - found[0], expected - expected[0])
    kernel = replace(seen, likelihood="mean-absolute").negative_log_likelihood(predicted)
    variance = seen.variance / (math.pi / 2 * OBSERVED)
    torch.testing.assert_close(kernel, negative_log("mean-absolute", predicted - seen.values, variance))


def test_cost_counts_moves_and_they_are_steps(posterior):
    made = method_of("ddis-gn", samples=2, renoise=4, covariance="spectrum")
    batch = posterior.batch(made, slice(None), [generator(1, "chain", number) for number in range(2)])
    states = list(made.sample(batch, made.prepare(batch)))
    expected = made.cost(Size(observed=OBSERVED, nodes=SIZE**2, fields=1, linear=True, gaussian=True))
    assert len(states) == 14 and states[-1].step == states[0].steps == expected.prior
    assert expected.prior == 10 + 2 * evaluations_from(0.3) + evaluations_from(0.7) + evaluations_from(1.0)
    assert batch.cost.prior == 2 * expected.prior
    assert batch.cost.operator == 2 * expected.operator + 2 * OBSERVED


def test_moves_with_a_corrected_operator_are_refused():
    with pytest.raises(InputError, match="renoise: 3 with a corrected operator; accepted: renoise: 0"):
        method_of("ddis-gn", renoise=3, operator="corrected").check(make_problem("darcy", {}, SIZE), SIZE)
