"""ddis.prior.empirical against the distribution that the coefficients come from."""

import numpy as np
import pytest

import ddis
from ddis.errors import InputError

N = 4000  # a variance has the relative standard error √(2 / N), 2 %


@pytest.mark.parametrize(
    ("name", "parameters"), [("poisson", {}), ("darcy", {"coefficient": "log-normal"}), ("darcy-source", {})]
)
def test_an_empirical_prior_has_mean_and_spectrum_of_its_coefficients(name, parameters):
    problem = ddis.problem(name, resolution=16, **parameters)
    prior = ddis.prior.empirical(problem, problem.sample_coefficients(range(N), 16, seed=0).numpy())
    unit, known = prior.coefficient.unit, problem.prior_spectrum(16)
    assert float(prior.mean.abs().max()) < 0.1  # at N fields, of about 0.5 at a node, the mean's standard error is below 0.02
    np.testing.assert_allclose(prior.spectrum * unit**2, known, rtol=6 * np.sqrt(2 / N), atol=1e-20)


def test_exact_on_an_empirical_prior_comes_to_that_on_the_true_one():
    problem, sensors = ddis.problem("poisson", resolution=16), ddis.observe.points([[0.3, 0.4], [0.7, 0.2]], noise=1e-3)
    values = ddis.observe.simulate(sensors, problem.solve(problem.sample_coefficients([N], 16, seed=0))[0])
    priors = ddis.prior.gaussian(problem), ddis.prior.empirical(problem, problem.sample_coefficients(range(N), 16, seed=0))
    true, found = (ddis.Posterior(problem, p, None, sensors, values).sample("exact", samples=2) for p in priors)
    assert np.linalg.norm(found.mean - true.mean) < 0.1 * np.linalg.norm(true.mean)
    np.testing.assert_allclose(found.std, true.std, rtol=0.1)


def test_coefficients_that_make_no_prior_are_refused():
    problem = ddis.problem("darcy", resolution=16, coefficient="log-normal")
    fields = problem.sample_coefficients(range(3), 16, seed=0).numpy()
    wrong = fields.copy()
    wrong[1, 2, 3] = -1
    for given, message in (
        (fields[0], r"shape \(16, 16\); accepted: \(N, 16, 16\), N at least 2"),
        (fields[:1], "N at least 2"),
        (np.ones((3, 16, 16)), "constant"),
        (wrong, "field 1 has values that no coefficient"),
    ):
        with pytest.raises(InputError, match=message):
            ddis.prior.empirical(problem, given)
