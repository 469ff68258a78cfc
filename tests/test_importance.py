"""Importance weights of samples through a network against the solver's posterior, in closed form; seeds are stated where used."""

import math

import numpy as np
import pytest
import torch
from test_corrected import Tilted

import ddis
from ddis.errors import InputError
from ddis.importance import effective, log_likelihood, weights
from ddis.observe.nodes import draw_nodes
from ddis.operators.error import OperatorError

SIZE, OBSERVED, SAMPLES, SEED = 8, 6, 4000, 3
MODES = 12  # those of largest prior variance are compared


def test_the_effective_number_is_that_of_two_gaussians():
    """a ~ N(0, 1), y = h a + e: 400,000 samples of N(m, v), weighted to N(m', v'), against E[w]² / E[w²] within 1 %."""
    y, (f, r_f), (g, r) = 0.6, (0.9, 0.3), (1.1, 0.1)
    v, v_t = 1 / (1 + f**2 / r_f), 1 / (1 + g**2 / r)
    m, m_t = v * f * y / r_f, v_t * g * y / r
    a, b = 1 / v_t, 1 / (2 * v)  # ∫ t²/q of the densities t = N(m', v'), q = N(m, v)
    expected = 1 / (math.sqrt(v / (2 * (a - b))) / v_t * math.exp(a * b * (m - m_t) ** 2 / (a - b)))
    x = torch.from_numpy(m + math.sqrt(v) * np.random.default_rng(SEED).standard_normal((400_000, 1)))
    values = torch.tensor([y], dtype=torch.float64)
    likelihoods = (log_likelihood(values, k * x, torch.tensor([[s]], dtype=torch.float64)) for k, s in ((g, r), (f, r_f)))
    solver, network = likelihoods
    found = weights(solver - network)
    assert 0.5 < expected < 0.9
    assert effective(found.numpy()) / len(x) == pytest.approx(expected, rel=0.01)
    mean = float(found @ x[:, 0])
    assert mean == pytest.approx(m_t, abs=4 * math.sqrt(v_t / (expected * len(x))))


def test_a_sample_that_the_solver_refuses_has_no_weight():
    predicted = torch.tensor([[0.0], [math.nan], [0.0], [math.inf]], dtype=torch.float64)
    found = weights(log_likelihood(torch.zeros(1), predicted, torch.eye(1)))
    assert found.tolist() == [0.5, 0, 0.5, 0] and effective(found.numpy()) == 2
    none = weights(log_likelihood(torch.zeros(1), predicted[[1, 3]], torch.eye(1)))
    assert none.tolist() == [0, 0] and effective(none.numpy()) == 0


@pytest.fixture(scope="module")
def linear():
    """Poisson, its Gaussian prior, a network off by up to 10 % with half the noise as the variance of its error, and values."""
    torch.set_num_threads(1)
    problem = ddis.problem("poisson", resolution=SIZE)
    network = Tilted(problem, 0.1)
    network.error = OperatorError(problem.solution_space(SIZE).grid.basis, 5e-3)
    index = draw_nodes(problem.solution_space(SIZE).grid, OBSERVED, SEED, 0)
    sensors = ddis.observe.nodes(index, noise=0.2 * network.solution.std)
    values = ddis.observe.simulate(sensors, problem.solve(problem.sample_coefficients([0], SIZE, SEED))[0])
    return problem, ddis.prior.gaussian(problem), network, sensors, values, index


def closed_form(problem, values, index, noise):
    """Mean [P] and covariance [P, P] of the leading modes given the solver, by dense algebra in NumPy, in physical units."""
    modes, spectrum = problem.coefficient_space(SIZE).grid.basis, problem.prior_spectrum(SIZE).flatten().numpy()
    units = modes.inverse(torch.eye(SIZE * SIZE, dtype=torch.float64).reshape(-1, SIZE, SIZE))
    rows = problem.solve(units).flatten(1).numpy().T[index]
    gain = spectrum[:, None] * rows.T @ np.linalg.inv((rows * spectrum) @ rows.T + noise**2 * np.eye(len(index)))
    lead = np.argsort(-spectrum)[:MODES]
    return lead, (gain @ values)[lead], (np.diag(spectrum) - gain @ (rows * spectrum))[np.ix_(lead, lead)]


def deviations(z, weights, mean, covariance):
    """Deviations, in standard errors, of the weighted means and covariances of samples z [K, P] from those given."""
    away = z - mean
    products = away[:, :, None] * away[:, None, :]
    scores = []
    for sample, expected in ((away, 0 * mean), (products, covariance)):
        estimate = np.tensordot(weights, sample, 1)
        error = np.sqrt(np.tensordot(weights**2, (sample - estimate) ** 2, 1))
        scores.append(((estimate - expected) / error).ravel())
    return np.abs(np.concatenate(scores))


@pytest.mark.parametrize("method", ["tikhonov", "ddis-gn"])
def test_weighted_samples_have_the_moments_of_the_solvers_posterior(linear, method: str):
    """12 means and 78 covariances within 4 standard errors, which 90 normal numbers exceed in 1 case of 180; else not."""
    problem, prior, network, sensors, values, index = linear
    posterior = ddis.Posterior(problem, prior, network, sensors, values)
    result = posterior.sample(method, samples=SAMPLES, seed=SEED, error_model="white")
    found = posterior.weights(result)
    modes = problem.coefficient_space(SIZE).grid.basis
    lead, mean, covariance = closed_form(problem, values, index, 0.2 * network.solution.std)
    z = modes.forward(torch.from_numpy(result.samples).double()).flatten(1).numpy()[:, lead]
    assert deviations(z, found, mean, covariance).max() < 4
    assert deviations(z, np.full(SAMPLES, 1 / SAMPLES), mean, covariance).max() > 6
    assert 0.05 * SAMPLES < effective(found) < 0.95 * SAMPLES
    assert found.sum() == pytest.approx(1)


def test_there_are_no_weights_where_no_network_stands_for_the_solver(linear):
    problem, prior, network, sensors, values, _ = linear
    solver = ddis.operator.solver(problem)
    corrected = ddis.operator.corrected(network, solver)
    for operator, method in ((solver, "ddis-gn"), (corrected, "ddis-gn"), (network, "es-mda")):
        posterior = ddis.Posterior(problem, prior, operator, sensors, values)
        assert posterior.weights(posterior.sample(method, samples=4)) is None


def test_the_solver_is_called_for_weights_alone(linear, monkeypatch):
    """And once a sample; samples of another posterior are refused before."""
    _, prior, network, sensors, values, index = linear
    problem, calls = ddis.problem("poisson", resolution=SIZE), []
    solve = problem.solve
    posterior = ddis.Posterior(problem, prior, network, sensors, values)
    monkeypatch.setattr(type(problem), "solve", lambda self, a: calls.append((self, len(a))) or solve(a))
    result = posterior.sample("tikhonov", samples=4)
    assert not [count for caller, count in calls if caller is problem]
    assert len(posterior.weights(result)) == 4 and [count for caller, count in calls if caller is problem] == [4]
    other = ddis.Posterior(problem, prior, network, ddis.observe.nodes(index[:3], noise=0.1), values[:3])
    with pytest.raises(InputError, match=r"samples of \(8, 8\), 6 values; accepted: \(8, 8\) and 3, of this posterior"):
        other.weights(result)
