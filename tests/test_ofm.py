"""`ofm` against known posteriors: Gaussian where the exact velocity makes T linear, and by quadrature where T is not."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from batches import last_state, method_of
from test_eci import KINDS, NOISE, SIZE, joint_posterior

import ddis
from ddis.config import Study
from ddis.errors import InputError
from ddis.fields.noise import Noise, RandomFieldNoise, WhiteNoise
from ddis.grid import square
from ddis.posterior import Posterior
from ddis.randomness import generator
from ddis.sampling.base import Batch, Size
from ddis.sampling.ofm import Flow, Gaussian

NODES = ddis.observe.nodes([18, 27, 36, 45])
ODE_STEPS = 2


def ofm_batch(posterior: Posterior, chains: int, **changes) -> Batch:
    """Chains of the only field; `free` is the identity, so that states hold x_1 [B, C, *nodes]."""
    generators = [generator(0, "ofm", number) for number in range(chains)]
    batch = replace(posterior.batch(method_of("ofm"), slice(None), generators), **changes)
    batch.free = lambda x: x
    return batch


@dataclass
class Exact:
    """The Gaussian posterior of x_1 [2 S²] on a linear T, by matrices in NumPy; and what is observed of x_1: M x_1."""

    mean: np.ndarray
    covariance: np.ndarray
    observe: np.ndarray

    @classmethod
    def of(cls, batch: Batch, tau: float) -> "Exact":
        """T and M by their columns; T from the flow's own discretised ODE, at unit vectors of the white numbers."""
        flow = Flow(replace(batch, generators=batch.generators[:1]), ODE_STEPS, tau)
        size = flow.white().shape[1]
        carry = flow.fields(torch.eye(size, dtype=torch.float64)).flatten(1).double().numpy().T
        units = torch.eye(len(carry), dtype=torch.float64).reshape(-1, *flow.fields(flow.white()).shape[1:])
        observe = batch.predict_joint(units).numpy().T
        prior, noise = carry @ carry.T, np.diag(batch.observation.variance[0].numpy() + tau**2)
        gain = prior @ observe.T @ np.linalg.inv(observe @ prior @ observe.T + noise)
        return cls(gain @ batch.observation.values[0].numpy(), prior - gain @ observe @ prior, observe)

    def check(self, fields: torch.Tensor) -> None:
        """Of N chains, along the principal axes of the posterior: independent errors of about 1/√N in the means, in units of the
        standard deviation, and of √(2/N) and √(1/N) in variances and correlations; 5 times them allowed. Axes with less than
        10⁻⁵ of the largest variance are left to rounding.
        """
        variances, axes = np.linalg.eigh(self.covariance)
        kept = variances > 1e-5 * variances.max()
        white = (fields.double().flatten(1).numpy() - self.mean) @ axes[:, kept] / np.sqrt(variances[kept])
        allowed = 5 / math.sqrt(len(white))
        assert kept.sum() > 20 and np.abs(white.mean(axis=0)).max() < allowed
        error = np.cov(white.T) - np.eye(kept.sum())
        assert np.abs(error.diagonal()).max() < allowed * math.sqrt(2)
        assert np.abs(error - np.diag(error.diagonal())).max() < allowed


STATIONARY = RandomFieldNoise(square(SIZE), "exponential", 0.1)


@pytest.mark.parametrize(
    ("noise", "tau", "settings"),
    [
        (NOISE, 0.005, {"linearisations": 1, "steps": 3}),
        (STATIONARY, 0.005, {"linearisations": 1, "steps": 3}),
        (NOISE, 0.2, {"linearisations": 0, "steps": 60}),
    ],
)
def test_chains_have_the_mean_and_covariance_of_the_posterior(noise: Noise, tau, settings):
    """2,000 chains. About the posterior itself every step is accepted; about the prior (τ of 0.4 standard deviations) not."""
    batch = ofm_batch(joint_posterior(NODES)[0], 2000, noise=noise)
    exact = Exact.of(batch, tau)
    exact.check(last_state(batch, "ofm", tau=tau, ode_steps=ODE_STEPS, **settings).x0)


def test_steps_about_a_wrong_gaussian_have_the_right_posterior(monkeypatch):
    """Its covariance is that of observations with 4 times the noise's variance, and its mean is wrong in proportion."""
    original = Gaussian.of
    monkeypatch.setattr(Gaussian, "of", staticmethod(lambda rows, target: original(rows / 2, 0.7 * target)))
    batch = ofm_batch(joint_posterior(NODES)[0], 2000)
    exact = Exact.of(batch, 0.1)
    exact.check(last_state(batch, "ofm", tau=0.1, ode_steps=ODE_STEPS, steps=40).x0)


def bent(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """A velocity that is not linear, of every node alone; one midpoint step makes x + 0.3 sin(2 x) of x."""
    return torch.where(t[:, None, None, None] > 0, 0.3 * torch.sin(2 * x), 0.0)


@pytest.mark.parametrize("linearisations", [0, 2])
def test_chains_on_a_bent_flow_have_the_moments_of_quadrature(linearisations):
    """White noise, and three nodes that are seen; 1,000 chains, 4 standard errors of E x_1 and E x_1² allowed."""
    nodes, tau = [18, 27, 45], 0.2
    batch = ofm_batch(joint_posterior(ddis.observe.nodes(nodes))[0], 1000, noise=WhiteNoise(), prior=bent)
    batch.observation.values[:] = torch.tensor([0.4, -0.9, 1.6])
    settings = {"steps": 80, "ode_steps": 1, "tau": tau, "linearisations": linearisations}
    found = last_state(batch, "ofm", **settings).x0[:, 1].flatten(1).double().numpy()
    w = np.linspace(-8, 8, 20001)
    x_1 = w + 0.3 * np.sin(2 * w)
    for node, y in [(10, None), *zip(nodes, batch.observation.values[0].tolist(), strict=True)]:
        density = np.exp(-(w**2) / 2 - (0.0 if y is None else (y - x_1) ** 2 / (2 * tau**2)))
        density /= density.sum()
        for power in (1, 2):
            mean, second = ((x_1 ** (power * k) * density).sum() for k in (1, 2))
            error = math.sqrt((second - mean**2) / len(found))
            assert abs((found[:, node] ** power).mean() - mean) < 4 * error, (node, power)


def test_the_gradient_is_that_of_finite_differences():
    """Of Φ about a Gaussian that is not the posterior, on a bent flow; central differences of float32 networks give 3 digits."""
    batch = ofm_batch(joint_posterior(KINDS["sum"])[0], 2)
    linear = batch.prior
    batch.prior = lambda x, t: linear(x, t) + 0.3 * torch.sin(3 * x)
    flow = Flow(batch, ODE_STEPS, 0.1)
    about = flow.linearised(flow.white())
    offset, direction = flow.white(), flow.white()
    slope = (flow.point(about, offset).gradient * direction).sum(dim=1)
    ends = [flow.point(about, offset + step * direction).potential for step in (1e-2, -1e-2)]
    assert torch.allclose((ends[0] - ends[1]) / 2e-2, slope, rtol=2e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_the_misfit_is_that_of_the_posterior(kind, noise):
    """Of every kind of observation, with noise and without; 200 chains, 5 standard errors of the mean of |misfit|² allowed."""
    batch = ofm_batch(joint_posterior(KINDS[kind])[0], 200)
    batch.observation = replace(batch.observation, variance=batch.observation.variance + noise**2)
    exact = Exact.of(batch, 0.005)
    x_1 = last_state(batch, "ofm", steps=3, ode_steps=ODE_STEPS, tau=0.005).x0
    squares = batch.observation.misfit(batch.predict_joint(x_1.double())).square().sum(dim=1)
    covariance = exact.observe @ exact.covariance @ exact.observe.T
    mean = exact.observe @ exact.mean - batch.observation.values[0].numpy()
    expected = mean @ mean + np.trace(covariance)
    error = math.sqrt((2 * (covariance**2).sum() + 4 * mean @ covariance @ mean) / 200)
    assert abs(float(squares.mean()) - expected) < 5 * error


def test_a_sample_does_not_depend_on_those_beside_it():
    """To the rounding of float32, which a step on an unbent flow does not magnify."""
    posterior, _ = joint_posterior(NODES)
    few, more = (last_state(ofm_batch(posterior, chains), "ofm", steps=4).x0 for chains in (2, 5))
    assert torch.allclose(few, more[:2], atol=1e-4)


@pytest.mark.parametrize("linearisations", [0, 1, 2])
def test_what_is_counted_is_what_the_cost_says_but_for_gradients(linearisations):
    """Each of the steps is one evaluation of the ODE with its gradient, which the count leaves out and the cost takes for two."""
    posterior, _ = joint_posterior(NODES)
    settings = {"steps": 6, "ode_steps": 3, "linearisations": linearisations}
    method, batch = method_of("ofm", **settings), ofm_batch(posterior, 5)
    last_state(batch, "ofm", **settings)
    ode, m = 2 * 3, 4
    assert batch.cost.prior == 5 * ode * (7 + linearisations * (1 + m))
    assert method.cost(Size(m, SIZE**2, 1, True, True)).prior == ode * (3 * 7 + linearisations * (1 + 2 * m))


def test_what_ofm_cannot_do_is_refused():
    poisson = ddis.problem("poisson", resolution=SIZE)
    alone = Posterior(poisson, ddis.prior.gaussian(poisson), None, NODES, [0.0] * 4)
    with pytest.raises(InputError, match=r"method ofm: needs a flow prior .*load flow-<percent> of a study"):
        alone.sample("ofm", samples=2)
    study = {
        "study": "refused",
        "problems": {"poisson": {"pde": "poisson"}},
        "data": {"resolution": 16, "train": 8, "validation": 2, "test": 2},
        "fractions": [1.0],
        "observations": {"sparse": {"count": 5}},
        "runs": {"ofm": {}},
    }
    assert Study.load(study).models_of("ofm", "100") == ["flow-100"]
    for key, value in (("steps", 0), ("ode_steps", 0), ("linearisations", -1), ("tau", -1)):
        with pytest.raises(InputError, match=rf"runs\.ofm\.{key}.*greater than or equal to"):
            Study.load({**study, "runs": {"ofm": {key: value}}})


def test_a_constrained_coefficient_may_be_observed():
    """Unlike for `eci`: darcy's is between two values, and M P(b) is not linear in the free field b."""
    posterior, _ = joint_posterior(NODES)
    darcy = ddis.problem("darcy", resolution=SIZE)
    seen = Posterior(darcy, posterior.prior, None, ddis.observe.coefficient([[0.5, 0.5]]), [3.0])
    assert np.isfinite(seen.sample("ofm", samples=2, steps=3).samples).all()
