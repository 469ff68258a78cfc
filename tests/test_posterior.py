"""`ddis-gn` and `exact` against the exact posterior, with the exact denoiser and the exact solver; and what must not pass.

Poisson at 16 x 16, 20 observations with 1 % noise, 2,400 chains from seed 7. For each of the 255 modes that vary, the mean of the
chains must lie within a z-test and their variance within a chi-square test of the closed form, at 1e-3 in all (Bonferroni over
the 510 tests). A correct sampler fails this with a probability of at most 1e-3; the negative controls are wrong samplers.
Helmholtz the same, where the coefficient is zero on the boundary: all 256 modes vary then, and are correlated in the prior too.
"""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from batches import last_state, make_batch
from scipy import stats

from ddis.fields.bases import Basis, basis
from ddis.fields.noise import DiagonalNoise, Noise, RandomFieldNoise
from ddis.grid import square
from ddis.models.denoiser import SIGMA_DATA
from ddis.models.normalisation import Normalisation
from ddis.observe.nodes import Nodes
from ddis.operators.solver import Solver
from ddis.pde import make_problem
from ddis.priors import gaussian
from ddis.randomness import generator
from ddis.sampling import covariance, ddis_gn
from ddis.sampling.base import Batch
from ddis.sampling.daps import anneal

SIZE, OBSERVED, CHAINS, SEED, NOISE = 16, 20, 2400, 7, 0.01
LEVEL = 1e-3


@dataclass
class Setting:
    """One observed field, and the closed form of the posterior of its (constrained) coefficient in the cosine basis.

    mean [P], covariance [P, P]
    """

    task: Batch
    modes: Basis
    mean: np.ndarray
    covariance: np.ndarray


def make_setting(pde: str = "poisson", chains: int = CHAINS) -> Setting:
    torch.set_num_threads(1)
    problem = make_problem(pde, {}, SIZE)
    modes = basis("cosine", SIZE)
    truth = problem.sample_coefficients([0], SIZE, SEED)
    spectrum = problem.prior_spectrum(SIZE)
    assert spectrum is not None
    scale = Normalisation(0.0, float(spectrum.mean().sqrt()))
    solution = Normalisation(0.0, float(problem.solve(problem.sample_coefficients(range(1, 65), SIZE, SEED)).std()))
    nodes = Nodes(OBSERVED)
    index = torch.from_numpy(nodes.draw(square(SIZE), SEED, 0))
    variance = (NOISE * solution.std) ** 2
    noise_draw = torch.from_numpy(generator(SEED, "observation", 0).standard_normal(OBSERVED)) * variance**0.5
    values = problem.solve(truth).flatten()[index] + noise_draw
    noise = DiagonalNoise(RandomFieldNoise(square(SIZE), "exponential", 0.1), modes)
    prior = gaussian(problem, noise, scale)
    sensors = Nodes(index, NOISE * solution.std)
    generators = [generator(SEED, "chain", 0, sample) for sample in range(chains)]
    task = make_batch(problem, prior, Solver(problem, solution), sensors, values, generators)
    mean, covariance = closed_form(
        problem,
        modes,
        prior.spectrum.numpy(),
        index.numpy(),
        solution.normalise(values).numpy(),
        (NOISE * SIGMA_DATA) ** 2,
        scale.std / solution.std,
    )
    return Setting(task, modes, mean, covariance)


def closed_form(problem, modes, spectrum, nodes, values, variance, scale):
    """Posterior by dense linear algebra in NumPy, with the dense prior covariance P C P of the constrained coefficient."""
    units = torch.eye(SIZE * SIZE, dtype=torch.float64).reshape(-1, SIZE, SIZE)
    matrix = scale * problem.solve(modes.inverse(units)).reshape(SIZE * SIZE, -1).numpy().T[nodes]
    projection = modes.forward(problem.constrain(modes.inverse(units))).flatten(1).numpy().T
    prior = projection @ np.diag(spectrum.ravel()) @ projection.T
    gram = matrix @ prior @ matrix.T + variance * np.eye(len(nodes))
    gain = prior @ matrix.T @ np.linalg.inv(gram)
    return gain @ values, prior - gain @ matrix @ prior


def chains(setting: Setting, method: str = "ddis-gn", **settings) -> np.ndarray:
    """Samples [chains, P] in the cosine basis."""
    last = last_state(setting.task, method, samples=CHAINS, **settings)
    return setting.modes.forward(setting.task.problem.constrain(last.x0.double())).flatten(1).numpy()


def p_values(samples: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Two-sided p-values [2 P'] of mean and variance of every mode that varies."""
    sd = np.sqrt(np.diag(covariance).clip(0))
    varies = sd > 1e-6 * sd.max()
    samples, mean, sd, count = samples[:, varies], mean[varies], sd[varies], len(samples)
    z = (samples.mean(axis=0) - mean) / (sd / np.sqrt(count))
    ratio = ((samples - samples.mean(axis=0)) ** 2).sum(axis=0) / sd**2
    upper = stats.chi2.sf(ratio, count - 1)
    return np.concatenate([2 * stats.norm.sf(abs(z)), 2 * np.minimum(upper, 1 - upper)])


def agrees(samples: np.ndarray, setting: Setting) -> bool:
    p = p_values(samples, setting.mean, setting.covariance)
    return bool(p.min() > LEVEL / len(p))


@pytest.fixture(scope="module")
def setting() -> Setting:
    return make_setting()


def test_test_accepts_exact_draws_and_knows_the_modes(setting):
    rng = np.random.default_rng(3)
    values, vectors = np.linalg.eigh(setting.covariance)
    draws = setting.mean + (rng.standard_normal((CHAINS, len(values))) * np.sqrt(values.clip(0))) @ vectors.T
    assert agrees(draws, setting)
    assert len(p_values(draws, setting.mean, setting.covariance)) == 2 * (SIZE**2 - 1)


@pytest.mark.parametrize(("steps", "sigma_max"), [(3, 80.0), (10, 80.0), (3, 0.5)])
@pytest.mark.parametrize("pde", ["poisson", "helmholtz"])
def test_gauss_newton_reproduces_the_exact_posterior(pde, steps, sigma_max):
    """For any number of levels, and also where noise of sigma_max is small against the coefficient."""
    fresh = make_setting(pde)
    assert agrees(chains(fresh, steps=steps, sigma_max=sigma_max), fresh)


def test_a_start_from_noise_alone_is_rejected(setting, monkeypatch):
    monkeypatch.setattr(ddis_gn, "anneal", lambda *args, x0: anneal(*args))
    assert not agrees(chains(make_setting(), steps=3, sigma_max=0.5), setting)


@pytest.mark.parametrize("pde", ["poisson", "helmholtz"])
def test_exact_reproduces_the_exact_posterior(pde):
    setting, fresh = make_setting(pde), make_setting(pde)
    assert agrees(chains(fresh, "exact"), setting)
    last = last_state(fresh.task, "exact")
    assert last.mean is not None and last.std is not None
    constrain = fresh.task.problem.constrain
    mean = setting.modes.forward(constrain(last.mean.double())).flatten().numpy()
    assert np.abs(mean - setting.mean).max() < 1e-5
    variance = np.einsum("pi,pq,qi->i", *_fields(setting))
    assert np.allclose(constrain(last.std).flatten().numpy() ** 2, variance, atol=1e-6)


def _fields(setting):
    units = torch.eye(SIZE * SIZE, dtype=torch.float64).reshape(-1, SIZE, SIZE)
    functions = setting.modes.inverse(units).flatten(1).numpy()
    return functions, setting.covariance, functions


def test_helmholtz_with_a_covariance_taken_as_diagonal_is_rejected():
    setting, wrong = make_setting("helmholtz"), make_setting("helmholtz")
    units = torch.eye(SIZE * SIZE, dtype=torch.float64).reshape(-1, SIZE, SIZE)
    projection = wrong.modes.forward(wrong.task.problem.constrain(wrong.modes.inverse(units))).flatten(1)
    wrong.task.spectrum = (wrong.task.spectrum.flatten() @ projection**2).reshape(SIZE, SIZE)
    assert not agrees(chains(wrong, "exact"), setting)


def test_isotropic_covariance_is_rejected(setting, monkeypatch):
    monkeypatch.setattr(covariance, "conditional_spectrum", lambda spectrum, noise, sigma: torch.full_like(spectrum, sigma**2))
    assert not agrees(chains(make_setting()), setting)


def test_observation_covariance_four_times_too_large_is_rejected(setting):
    wrong = make_setting()
    o = wrong.task.observation
    wrong.task.observation = replace(o, variance=4 * o.variance)
    assert not agrees(chains(wrong), setting)


def test_wrong_basis_is_rejected(setting):
    class AnyBasis:
        """The true noise, with the spectrum that it has in the cosine basis reported for every basis."""

        def __init__(self, noise: Noise, modes: Basis):
            self.noise, self.modes = noise, modes

        def sample(self, shape, generators, device):
            return self.noise.sample(shape, generators, device)

        def spectrum(self, _):
            return self.noise.spectrum(self.modes)

    wrong = make_setting()
    wrong.task.noise = AnyBasis(wrong.task.noise, wrong.modes)
    wrong.task.basis = basis("fourier", SIZE)
    assert not agrees(chains(wrong), setting)


def test_samples_do_not_depend_on_the_batch():
    whole, part = make_setting(chains=6), make_setting(chains=6)
    part.task.generators = part.task.generators[4:]
    first, second = chains(whole), chains(part)
    assert np.allclose(first[4:], second, atol=1e-5)
