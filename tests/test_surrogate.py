"""Chains that walk a learnt model of the predictions: two-valued darcy against quadrature, and from draws of the posterior.

Seeds are stated where used.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ddis.grid import square
from ddis.observe.base import Functionals
from ddis.observe.nodes import draw_nodes
from ddis.pde import make_problem
from ddis.pde.darcy import Darcy, DarcyParameters
from ddis.randomness import generator
from ddis.references.chains import Budget, Chains
from ddis.references.diagnostics import Diagnosis
from ddis.references.latent import Latent
from ddis.references.surrogate import Surrogate, products

SIZE, SEED, OBSERVED = 8, 11, 12


class ThreeModes(Darcy):
    """Two-valued darcy whose g has its three longest waves alone, equally strong: a depends on the direction of z in space."""

    def latent_spectrum(self, resolution: int) -> torch.Tensor:
        spectrum = torch.zeros(resolution, resolution, dtype=torch.float64)
        spectrum[0, 1] = spectrum[1, 0] = spectrum[1, 1] = 1.0
        return spectrum


def observed(problem: Darcy, truths: torch.Tensor, noise: float) -> Latent:
    """What noisy observations, of standard deviation `noise` x std(u), say of the fields of white coefficients [n, P]."""
    index = torch.from_numpy(draw_nodes(square(SIZE), OBSERVED, SEED, 0)).expand(len(truths), -1)
    values, variance = torch.zeros(index.shape, dtype=torch.float64), torch.ones(index.shape, dtype=torch.float64)
    latent = Latent(problem, Functionals(torch.arange(SIZE**2)[:, None], None, SIZE**2), index, values, variance)
    seen = latent.predict(truths[:, None])[:, 0]
    error = np.stack([generator(SEED, "noise", field).standard_normal(OBSERVED) for field in range(len(truths))])
    scale = noise * float(problem.solve(latent.coefficient(truths)).std())
    return replace(latent, values=seen + scale * torch.from_numpy(error), variance=variance * scale**2)


def white(fields: int, modes: int) -> torch.Tensor:
    return torch.from_numpy(np.stack([generator(SEED, "truth", field).standard_normal(modes) for field in range(fields)]))


def test_chains_on_a_field_with_jumps_reproduce_the_quadrature():
    """Mean and standard deviation of a against the sum over 20,000 directions of z, evenly spread over the sphere.

    What the chains miss by is in units of the Monte Carlo error of their effective draws: 1 (root mean square over the nodes) if
    they were independent of each other, 1.6 allowed.
    """
    torch.set_num_threads(1)
    problem = ThreeModes(DarcyParameters())
    problem.resolution = SIZE
    latent = observed(problem, white(1, 3), 0.2)
    count = 20_000
    height = 1 - (2 * torch.arange(count, dtype=torch.float64) + 1) / count
    angle, radius = torch.arange(count) * np.pi * (3 - 5**0.5), (1 - height**2).sqrt()
    directions = torch.stack([radius * angle.cos(), radius * angle.sin(), height], dim=1)
    weight = torch.softmax(-latent.misfit(latent.predict(directions[None])), dim=1)
    a = latent.coefficient(directions).flatten(1)
    mean, std = weight @ a, ((weight @ a**2) - (weight @ a) ** 2).clamp_min(0).sqrt()
    chains = Chains(latent, Budget(samples=64, chains=16, burn_in=100, steps=750), SEED, [0])
    assert chains.guided
    for row, found in [pair for _, ended in chains.run() for pair in ended]:
        draws, varies = found.diagnosis.ess_bulk, std[row] > 0.1
        assert found.diagnosis.converged and found.acceptance > 0.3
        off = ((found.mean.flatten() - mean[row]) / std[row] * draws**0.5)[varies]
        assert float(off.square().mean().sqrt()) < 1.6
        assert torch.allclose(found.std.flatten(), std[row], atol=4 * 4.5 / draws**0.5)


def test_guided_steps_leave_the_posterior_invariant_however_wrong_the_model():
    """Truths are draws of the posterior of their own observations, and stay such under 3 steps guided by a wrong model.

    400 fields of 63 modes and 12 observations: on average over the fields |z|² is 63 ± (126 / 400)^½ = 0.6, and Φ of a posterior
    draw 6 ± (6 / 400)^½ = 0.12, as at the truth; three of them are allowed.
    """
    torch.set_num_threads(1)
    truths = white(400, 63)
    latent = observed(make_problem("darcy", {}, SIZE), truths, 0.3)
    chains = Chains(latent, Budget(samples=1, chains=1, burn_in=100, steps=100), SEED, range(400))
    state = chains.start()
    state.z, state.step, state.size[:], state.power[:] = truths[:, None], 100, 0.3, 1.0
    state.predicted = latent.predict(state.z)
    state.misfit = latent.misfit(state.predicted)
    states = torch.from_numpy(generator(SEED, "states").standard_normal((1, 300, 63)))
    known = replace(latent, **{name: getattr(latent, name)[:1] for name in ("index", "values", "variance")})
    model = Surrogate.fitted(known, known.features(known.coefficient(states)), known.predict(states))
    for name, part in vars(replace(model, slope=0.8 * model.slope)).items():
        setattr(state, name, part.expand(400, *part.shape[1:]))
    for _ in range(3):
        chains.advance(state)
    moved = (state.z[:, 0] != truths).any(dim=1).double().mean()
    assert float(moved) > 0.3 and 0.05 < float(state.accepted.mean()) / 3 < 0.9
    assert float(state.z.square().sum(dim=2).mean()) == pytest.approx(63, abs=1.8)
    assert float(state.misfit.mean()) == pytest.approx(OBSERVED / 2, abs=0.36)


def test_the_noise_of_a_walk_is_normal_and_of_the_seed_the_field_and_the_step_alone():
    """Whatever other fields walk beside it. 32,256 numbers: mean 0 ± 0.0056, mean square 1 ± 0.008; four of them are allowed."""
    chains = Chains(observed(make_problem("darcy", {}, SIZE), white(3, 63), 0.3), Budget(chains=16), SEED, range(3))
    alone, together, later = (
        [[part.clone() for part in step] for step in chains._walking(rows, step)]
        for rows, step in (([2], 5), ([0, 2], 5), ([2], 6))
    )
    for own, both, other in zip(alone, together, later, strict=True):
        assert torch.equal(own[0][0], both[0][1]) and torch.equal(own[1][0], both[1][1])
        assert not torch.equal(own[0], other[0]) and not torch.equal(both[0][0], both[0][1])
    normal, uniform = (torch.cat([step[part].flatten() for step in alone]) for part in range(2))
    assert abs(float(normal.mean())) < 0.023 and float(normal.square().mean()) == pytest.approx(1, abs=0.032)
    assert float(uniform.mean()) == pytest.approx(0.5, abs=4 * (1 / 12 / len(uniform)) ** 0.5) and float(uniform.min()) >= 0


def test_chains_go_on_until_they_have_as_many_draws_as_are_kept(monkeypatch):
    """128 of each chain: 250 steps give 62."""
    monkeypatch.setattr("ddis.references.chains.diagnose", lambda _: Diagnosis(1.0, 1000.0, 1000.0))
    latent = observed(make_problem("darcy", {}, SIZE), white(1, 63), 0.3)
    chains = Chains(latent, Budget(samples=2048, chains=16, burn_in=100, steps=3000), SEED, [0])
    state = chains.start()
    for steps, ends in ((250, False), (500, False), (750, True)):
        state.step, state.recorded, state.filled = 100 + steps, steps // 4, steps // 4
        assert bool(chains.ended(state)) == ends


class Fragile(Darcy):
    """Two-valued darcy that refuses coefficients whose mean is above 8, some of every step."""

    refused = 0

    def solve(self, coefficient: torch.Tensor) -> torch.Tensor:
        refused = coefficient.mean(dim=(-2, -1)) > 8
        Fragile.refused += int(refused.sum())
        return torch.where(refused[..., None, None], torch.nan, super().solve(coefficient))


def test_the_model_learns_no_predictions_of_what_the_problem_refuses():
    """Everything that is remembered of walks is a state and its prediction: no proposal that was refused, with zeros for it."""
    torch.set_num_threads(1)
    problem = Fragile(DarcyParameters())
    problem.resolution = SIZE
    latent = observed(problem, white(1, 63), 0.3)
    assert latent.values.isfinite().all()
    chains = Chains(latent, Budget(samples=16, chains=16, burn_in=40, steps=100), SEED, [0])
    state = chains.start()
    while state.step < 10:
        chains.advance(state)
    plain, Fragile.refused = state.remembered, 0
    while state.step < 30:
        chains.advance(state)
    assert Fragile.refused and state.predicted.isfinite().all()
    known = slice(plain, state.remembered)
    z, predicted = (past[:, known].flatten(1, 2) for past in (state.past_z, state.past_predicted))
    assert torch.allclose(latent.predict(z), predicted, rtol=1e-4)
    assert torch.allclose(latent.features(latent.coefficient(z)), state.past_features[:, known].flatten(1, 2))


def test_a_model_of_a_quadratic_function_is_that_function():
    """Terms are those of (1 + x·x')² - 1; predictions that are quadratic in the features are found from enough states."""
    rng = torch.Generator().manual_seed(2)
    x, other = torch.randn(2, 1, 5, 6, generator=rng, dtype=torch.float64)
    assert torch.allclose((products(x) * products(other)).sum(dim=-1), (1 + (x * other).sum(dim=-1)) ** 2 - 1)
    latent = observed(make_problem("darcy", {}, SIZE), white(1, 63), 0.1)
    features = torch.randn(1, 4000, 64, generator=rng, dtype=torch.float64)
    values = 2 + features[..., :1] * features[..., 1:2] + features[..., 40:41]
    model = Surrogate.fitted(latent, features, values.expand(-1, -1, 3))
    assert torch.allclose(model(features), values.expand(-1, -1, 3), atol=0.03)
