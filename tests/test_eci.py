"""The flow prior and `eci` against closed forms of Gaussian fields, where the best velocity is linear and known."""

import math
from types import MethodType

import numpy as np
import pytest
import torch
from batches import last_state, method_of
from posterior_gap import JointGaussianVelocity
from trainings import flow_trainer

import ddis
from ddis.config import Study
from ddis.errors import InputError
from ddis.fields.bases import basis
from ddis.fields.noise import DiagonalNoise, RandomFieldNoise
from ddis.grid import square
from ddis.models.normalisation import Normalisation
from ddis.posterior import Posterior
from ddis.priors import Prior
from ddis.randomness import generator
from ddis.sampling.base import Batch
from ddis.sampling.eci import Projection
from ddis.training import noisy
from ddis.training.flow import FlowSettings

SIZE = 8
MODES = basis("cosine", SIZE)
NOISE = DiagonalNoise(RandomFieldNoise(square(SIZE), "exponential", 0.1), MODES)
SPECTRUM = torch.from_numpy(np.random.default_rng(0).uniform(0.02, 0.6, (SIZE, SIZE)))


def gain(t: torch.Tensor, s: float) -> torch.Tensor:
    """cov(v*, x_t) / var(x_t) of each mode [B, 1, S, S]: what the best velocity multiplies x_t by."""
    t, c, k = t.double()[:, None, None, None], SPECTRUM, NOISE.spectrum(MODES)
    left = 1 - (1 - s) * t
    return (t * c - (1 - s) * left * k) / (t**2 * c + left**2 * k)


class Best:
    """The best velocity of the Gaussian field, times a factor."""

    def __init__(self, s: float, factor: float = 1.0):
        self.s, self.factor = s, factor

    def __call__(self, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return (self.factor * MODES.inverse(gain(t, self.s) * MODES.forward(x_t.double()))).to(x_t)


def gaussian_fields(count: int) -> torch.Tensor:
    torch.manual_seed(0)
    return MODES.inverse(SPECTRUM.sqrt() * torch.randn(count, 1, SIZE, SIZE, dtype=torch.float64)).float()


@pytest.mark.parametrize(("s", "t"), [(1e-4, 0.0), (1e-4, 0.4), (0.1, 0.9), (0.1, 1.0)])
def test_the_loss_of_the_best_velocity_is_the_conditional_variance(s, t):
    """var(v* | x_t), the mean over modes of C K / (t² C + (1 - (1 - s) t)² K); 4,000 fields, 5 standard errors allowed.

    By the Cauchy-Schwarz remainder: var(v*) var(x_t) - cov(v*, x_t)² = C K (t (1 - s) + 1 - (1 - s) t)² = C K.
    """
    x, times = gaussian_fields(4000), torch.full((4000,), t)
    noise = NOISE.sample(tuple(x.shape), [generator(1, "noise", number) for number in range(len(x))])
    settings = FlowSettings(sigma_min=s)
    found, other = (float(settings.loss(Best(s, factor), x, times, noise)) for factor in (1.0, 1.5))
    k = NOISE.spectrum(MODES)
    left = SPECTRUM * k / (t**2 * SPECTRUM + (1 - (1 - s) * t) ** 2 * k)
    standard_error = float((2 * (left**2).sum()).sqrt()) / SIZE**2 / math.sqrt(len(x))
    assert found == pytest.approx(float(left.mean()), abs=5 * standard_error)
    assert other > found + 5 * standard_error


def test_the_best_velocity_carries_noise_to_the_spectrum_of_the_data():
    """The midpoint rule in 200 steps: modes of unit noise end with the variance C + s² K, up to the rule's error, below 0.1 %."""
    s, steps = 1e-2, 200
    x = MODES.inverse(torch.eye(SIZE**2, dtype=torch.float64).reshape(-1, 1, SIZE, SIZE) * NOISE.spectrum(MODES).sqrt())
    velocity = Best(s)
    for step in range(steps):
        at = [torch.full((len(x),), (step + part) / steps, dtype=torch.float64) for part in (0, 0.5)]
        x = x + velocity(x + velocity(x, at[0]) / (2 * steps), at[1]) / steps
    end = MODES.forward(x).flatten(1).diagonal().square()
    assert torch.allclose(end, (SPECTRUM + s**2 * NOISE.spectrum(MODES)).flatten(), rtol=1e-3)


def test_times_of_a_validation_are_spread_evenly_and_those_of_a_training_uniform():
    seen = []

    def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen.append(t)
        return torch.zeros_like(x)

    settings, data = FlowSettings(), gaussian_fields(20)
    settings.validation_loss(data, NOISE, seed=0)(network)
    count = noisy.VALIDATION_DRAWS
    assert torch.allclose(torch.cat(seen).sort().values, (torch.arange(count) + 0.5) / count)
    seen.clear()
    loss = settings.training_loss(network, data, NOISE, seed=0, first=0)
    for step in range(50):
        loss(np.arange(20), step)
    times = torch.cat(seen)
    assert float(times.mean()) == pytest.approx(0.5, abs=5 / math.sqrt(12 * 1000)) and 0 <= times.min() < times.max() <= 1
    whole = loss(np.arange(20), 0)
    parts = [settings.training_loss(network, data, NOISE, 0, first)(np.arange(first, first + 10), 0) for first in (0, 10)]
    assert float(sum(parts) / 2) == pytest.approx(float(whole), rel=1e-6)  # what is drawn belongs to the place in the batch


def test_a_short_training_lowers_the_loss():
    trainer = flow_trainer()
    with torch.no_grad():
        before = trainer.validate(trainer.average)
    *_, last = trainer.run()
    assert last.validation_loss is not None and trainer.progress.best_loss < 0.9 * before


# Sampling


def joint_posterior(sensors, problem=None, size=SIZE) -> tuple[Posterior, torch.Tensor]:
    """Poisson with the exact flow prior of the pairs, and the covariance of their modes; one observed field."""
    problem = problem or ddis.problem("poisson", resolution=size)
    modes, gaussian = basis("cosine", size), ddis.prior.gaussian(problem)
    units = modes.inverse(torch.eye(size**2, dtype=torch.float64).reshape(-1, size, size))
    solve = modes.forward(problem.solve(units)).flatten(1).T
    truth = problem.solve(problem.sample_coefficients([5], size, 0))[0]
    solution = Normalisation(0.0, float(truth.std()))
    scale = gaussian.coefficient.unit * (1 / solution.unit)
    c = torch.diag(gaussian.spectrum.flatten())
    g = solve * scale
    joint = torch.cat([torch.cat([c, c @ g.T], dim=1), torch.cat([g @ c, g @ c @ g.T], dim=1)])
    noise = DiagonalNoise(RandomFieldNoise(square(size), "exponential", 0.1), modes)
    velocity = JointGaussianVelocity(modes, joint, noise.spectrum(modes))
    prior = Prior(velocity, noise, gaussian.coefficient, gaussian.mean, gaussian.spectrum, solution, kind="flow")
    values = ddis.observe.simulate(sensors, truth, problem.sample_coefficients([5], size, 0)[0])
    return Posterior(problem, prior, None, sensors, values), joint


def flow_batch(posterior: Posterior, chains: int) -> tuple[Batch, list[torch.Tensor]]:
    """Chains of the only field, and a list that their fields [B, C, *nodes] are put into after each step."""
    batch, seen = posterior.batch(method_of("eci"), slice(None), [generator(0, "eci", number) for number in range(chains)]), []
    free = batch.free
    batch.free = MethodType(lambda self, x: seen.append(x) or free(x), batch)
    return batch, seen


def test_the_chains_have_the_mean_and_covariance_of_the_recursion():
    """The exact velocity makes every step affine: mean and covariance follow by matrices in NumPy, from the formulas alone.

    4,000 chains: the error of the mean is expected to be √(tr S / N), 1.5 times it allowed; that of variances √(2 / N), 5 times.
    """
    nodes, steps, mix, count = [18, 27, 36, 45], 4, 2, 4000
    posterior, joint = joint_posterior(ddis.observe.nodes(nodes))
    batch, seen = flow_batch(posterior, count)
    last_state(batch, "eci", steps=steps, mix=mix)

    functions = MODES.inverse(torch.eye(SIZE**2, dtype=torch.float64).reshape(-1, SIZE, SIZE)).flatten(1).T.numpy()
    functions = np.kron(np.eye(2), functions)  # modes of (coefficient, solution) to nodes
    data = functions @ joint.numpy() @ functions.T
    k = posterior.prior.noise.spectrum(MODES).flatten().numpy()
    noise = functions @ np.diag(np.tile(k, 2)) @ functions.T
    rows = np.zeros((len(nodes), 2 * SIZE**2))
    rows[np.arange(len(nodes)), SIZE**2 + np.array(nodes)] = 1
    y = posterior.values[0].numpy()
    mean, covariance = np.zeros(len(data)), noise
    for step in range(steps):
        t = step / steps
        for following in (t, (step + 1) / steps):
            # v = E[x_1 - n | x_t], the limit of s -> 0
            velocity = (t * data - (1 - t) * noise) @ np.linalg.pinv(t**2 * data + (1 - t) ** 2 * noise)
            ahead = np.eye(len(data)) + (1 - t) * velocity
            correct = np.eye(len(data)) - rows.T @ rows
            end_mean = correct @ ahead @ mean + rows.T @ y
            end_covariance = correct @ ahead @ covariance @ ahead.T @ correct
            mean, covariance = following * end_mean, following**2 * end_covariance + (1 - following) ** 2 * noise
    found = seen[-1].double().flatten(1).numpy()
    away = np.linalg.norm(found.mean(axis=0) - mean)
    assert away < 1.5 * math.sqrt(np.trace(covariance) / count)
    expected = covariance.diagonal()
    assert np.allclose(found.var(axis=0), expected, rtol=5 * math.sqrt(2 / count), atol=1e-9)


def test_a_field_that_its_observations_determine_is_found():
    """Pairs that are multiples of one: with half of the solution's nodes observed the only one that fits is the conditional mean.

    Each correction takes the share of the observed nodes' energy off the distance, so that 100 steps leave less than 1 %.
    """
    posterior, _ = joint_posterior(ddis.observe.nodes([9 + 8 * i + j for i in range(6) for j in range(0, 6, 2)]))
    pattern = torch.randn(2, SIZE, SIZE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pattern[0] *= 0.5
    modes = MODES.forward(pattern).flatten()
    velocity = JointGaussianVelocity(MODES, torch.outer(modes, modes), posterior.prior.noise.spectrum(MODES))
    batch, seen = flow_batch(posterior, 8)
    batch.prior = velocity
    batch.observation.values[:] = 0.7 * pattern[1].flatten()[posterior.index[0]]
    last_state(batch, "eci", steps=100, mix=5)
    away = (seen[-1].double() - 0.7 * pattern).flatten(1).norm(dim=1) / (0.7 * pattern).norm()
    assert float(away.max()) < 0.01


KINDS = {
    "nodes": ddis.observe.nodes([10, 27, 45]),
    "points": ddis.observe.points([[0.3, 0.4], [0.32, 0.41], [0.7, 0.2]], between_nodes=False),
    "blocks": ddis.observe.blocks(4),
    "columns": ddis.observe.columns([2, 5]),
    "coefficient": ddis.observe.coefficient([[0.3, 0.3], [0.7, 0.6]], between_nodes=False),
}
KINDS["sum"] = KINDS["blocks"] + KINDS["coefficient"] + KINDS["points"]


@pytest.mark.parametrize("kind", KINDS)
def test_samples_have_the_observed_values_at_the_end(kind):
    """To the rounding of float32, in normalised fields of standard deviation 0.5."""
    posterior, _ = joint_posterior(KINDS[kind])
    batch, seen = flow_batch(posterior, 6)
    last_state(batch, "eci", steps=5, mix=2)
    misfit = batch.observation.misfit(batch.predict_joint(seen[-1]))
    assert float(misfit.abs().max()) < 2e-5


def test_corrections_move_observed_nodes_alone_and_by_the_least_that_does_it():
    posterior, _ = joint_posterior(KINDS["nodes"])
    batch, _ = flow_batch(posterior, 3)
    x = torch.randn(3, 2, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    moved = Projection.of(batch)(x)
    changed = (moved != x).flatten(1)
    assert all(set(np.flatnonzero(row)) <= {SIZE**2 + node for node in (10, 27, 45)} for row in changed.numpy())
    posterior, _ = joint_posterior(KINDS["sum"])
    batch, _ = flow_batch(posterior, 3)
    project = Projection.of(batch)
    moved = project(x)
    assert torch.allclose(project(moved), moved, atol=1e-5)
    other = project(x + torch.randn(x.shape, generator=torch.Generator().manual_seed(2)))  # has the values too
    assert float(((moved - x) * (other - moved)).flatten(1).sum(dim=1).abs().max()) < 1e-3  # orthogonal: the closest


def test_a_value_that_is_observed_twice_is_set_once():
    posterior, _ = joint_posterior(ddis.observe.nodes([27]) + ddis.observe.nodes([27, 30]))
    batch, seen = flow_batch(posterior, 2)
    last_state(batch, "eci", steps=3)
    assert float(batch.observation.misfit(batch.predict_joint(seen[-1])).abs().max()) < 1e-5


@pytest.mark.parametrize(("resample", "draws"), [(1, 1 + 6), (2, 1 + 3), (100, 1)])
def test_noise_is_drawn_anew_at_every_rth_correction(resample, draws):
    posterior, _ = joint_posterior(KINDS["nodes"])
    batch, _ = flow_batch(posterior, 2)
    drawn = []
    own = batch.draw_noise
    batch.draw_noise = MethodType(lambda self, channels: drawn.append(channels) or own(channels), batch)
    last_state(batch, "eci", steps=3, mix=2, resample=resample)
    assert drawn == [2] * draws


def test_what_eci_cannot_do_is_refused():
    problem = ddis.problem("darcy", resolution=SIZE)
    flow = Prior(
        Best(0.0), NOISE, Normalisation(0.0, 1.0), torch.zeros(SIZE, SIZE), SPECTRUM, Normalisation(0.0, 1.0), kind="flow"
    )
    posterior = Posterior(problem, flow, None, ddis.observe.coefficient([[0.5, 0.5]]), [3.0])
    message = r"method eci: sets observed values, and those of a constrained coefficient .*accepted: observations of the solution"
    with pytest.raises(InputError, match=message):
        posterior.sample("eci", samples=2)
    with pytest.raises(InputError, match=r"method fundps: needs a joint prior .*load joint-<percent> of a study"):
        posterior.sample("fundps", samples=2)
    with pytest.raises(InputError, match=r"method ddis-gn: needs a prior of the coefficient alone, not a flow one"):
        posterior.sample("ddis-gn", samples=2)
    poisson = ddis.problem("poisson", resolution=SIZE)
    alone = Posterior(poisson, ddis.prior.gaussian(poisson), None, KINDS["nodes"], [0.0] * 3)
    with pytest.raises(InputError, match=r"method eci: needs a flow prior .*load flow-<percent> of a study"):
        alone.sample("eci", samples=2)
    study = {
        "study": "refused",
        "problems": {"darcy": {"pde": "darcy"}},
        "data": {"resolution": 16, "train": 8, "validation": 2, "test": 2},
        "fractions": [1.0],
        "observations": {"wells": {"kind": "coefficient", "count": 3}, "sparse": {"count": 5}},
        "runs": {"eci": {"mix": {"darcy": 5}}},
    }
    with pytest.raises(InputError, match=r"runs\.eci, observations\.wells: " + message):
        Study.load(study)
    study["runs"]["eci"]["observations"] = ["sparse"]
    assert Study.load(study).models_of("eci", "100") == ["flow-100"]
    with pytest.raises(InputError, match=r"mix.*greater than or equal to 1"):
        Study.load({**study, "runs": {"eci": {"mix": 0, "observations": ["sparse"]}}})


def test_a_flow_has_noise_of_its_own_and_a_default_section_changes_no_other_result():
    study = {
        "study": "noise",
        "problems": {"poisson": {"pde": "poisson"}},
        "data": {"resolution": 16, "train": 8, "validation": 2, "test": 2},
        "fractions": [1.0],
        "observations": {"sparse": {"count": 5}},
        "runs": {"eci": {}, "fundps": {"weight": 1}},
    }

    def digests(**changes) -> list[str]:
        made = Study.load({**study, **changes})
        return [made.digest("train", problem="poisson", model=model) for model in ("flow-100", "joint-100")]

    plain, other, flow = digests(), digests(noise={"length": 0.05}), digests(flow={"noise": {"length": 0.05}})
    assert plain[0] == other[0] != flow[0] and plain[1] == flow[1] != other[1]


def test_the_benchmark_velocity_is_that_of_independent_modes():
    """The dense one, of one field, against the formula mode by mode; it takes times below 1e-6 for that."""
    dense = JointGaussianVelocity(MODES, torch.diag(SPECTRUM.flatten()), NOISE.spectrum(MODES))
    x, t = gaussian_fields(3).double(), torch.tensor([0.0, 0.3, 0.95], dtype=torch.float64)
    expected = MODES.inverse(gain(t, 0.0) * MODES.forward(x))
    assert torch.allclose(dense(x, t), expected, atol=1e-5)
