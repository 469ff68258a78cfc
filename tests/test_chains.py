"""Markov chains against closed forms, and the diagnostics that judge them against known correlation times.

Seeds are stated where used. The chains' problem is poisson on 16 x 16 nodes with 30 observations, a posterior in closed form.
"""

from dataclasses import astuple, replace
from itertools import islice

import numpy as np
import pytest
import torch

from ddis.errors import InputError
from ddis.grid import square
from ddis.observe.base import Functionals
from ddis.observe.nodes import Nodes, draw_nodes
from ddis.pde import make_problem
from ddis.posterior import Posterior
from ddis.priors import gaussian
from ddis.randomness import generator
from ddis.references import chains
from ddis.references.chains import Budget, Chains, State
from ddis.references.diagnostics import Diagnosis, diagnose, ess, ess_bulk, ess_tail, r_hat
from ddis.references.latent import Latent
from ddis.references.proposal import Proposal, fitted

SIZE, SEED, OBSERVED, FIELDS = 16, 11, 30, 2
BUDGET = Budget(samples=64, chains=16, burn_in=400, steps=400)


def autoregressive(phi: float, count: int, length: int, seed: int = 0) -> np.ndarray:
    """Stationary chains x_t = φ x_(t-1) + (1 - φ²)^½ e_t [count, length], of variance 1; N / ESS = (1 + φ) / (1 - φ)."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, length))
    for t in range(1, length):
        x[:, t] = phi * x[:, t - 1] + (1 - phi**2) ** 0.5 * x[:, t]
    return x


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9, -0.5])
def test_effective_sample_size_of_an_autoregression_is_known(phi):
    """8 chains of 4,000: the correlation time of φ = 0.9 is known to about 5 %, twice that is allowed."""
    x = autoregressive(phi, 8, 4000)
    expected = x.size * (1 - phi) / (1 + phi)
    assert ess(x) == pytest.approx(expected, rel=0.1)
    assert ess_bulk(x) == pytest.approx(expected, rel=0.1)
    assert r_hat(x) < 1.01


def test_the_tails_are_judged_by_their_own_indicators():
    """Independent draws are worth as much there as in the bulk; those whose spread stays small or large for long are not."""
    x = autoregressive(0.0, 4, 1000)
    assert ess_tail(x) == pytest.approx(x.size, rel=0.15)
    slow = x * np.where(np.arange(1000) // 100 % 2, 4.0, 1.0)
    assert ess_tail(slow) < 0.5 * x.size and ess_bulk(slow) > 0.8 * x.size


def test_r_hat_finds_chains_of_another_mean_or_another_spread():
    """4 chains of 1,000 independent draws. Another mean of one by δ: R² ≈ 1 + 3 δ² / 16; only folding finds another spread."""
    x = autoregressive(0.0, 4, 1000)
    moved, wide = x.copy(), x.copy()
    moved[0] += 0.5
    wide[0] *= 2
    assert r_hat(x) < 1.005
    assert r_hat(moved) == pytest.approx((1 + 3 * 0.25 / 16) ** 0.5, abs=0.01)
    assert r_hat(wide) > 1.02


def test_a_drift_within_every_chain_is_found():
    x = autoregressive(0.0, 4, 1000) + np.linspace(0, 1, 1000)
    assert r_hat(x) > 1.02


def test_ranks_make_the_diagnosis_independent_of_the_scale_and_fit_for_heavy_tails():
    x = autoregressive(0.5, 4, 500)
    assert astuple(diagnose([x])) == pytest.approx(astuple(diagnose([np.exp(3 * x)])), rel=0.02)


def test_a_diagnosis_is_that_of_the_worst_quantity_and_a_constant_is_not_converged():
    good, slow = autoregressive(0.0, 4, 1000), autoregressive(0.95, 4, 1000)
    both = diagnose([good, slow])
    assert both.ess_bulk == ess_bulk(slow) < ess_bulk(good) and both.r_hat == r_hat(slow)
    assert diagnose([good]).converged and not both.converged
    stuck = diagnose([good, np.ones((4, 1000))])
    assert stuck == Diagnosis(np.inf, 0.0, 0.0) and not stuck.converged


@pytest.fixture(scope="module")
def task() -> tuple[Latent, Posterior]:
    """The same observations as chains and `exact` take them: noise of 10 % of std(u)."""
    torch.set_num_threads(1)
    problem = make_problem("poisson", {}, SIZE)
    u = problem.solve(problem.sample_coefficients(range(FIELDS), SIZE, SEED))
    noise = 0.1 * float(u.std())
    index = np.stack([draw_nodes(square(SIZE), OBSERVED, SEED, f) for f in range(FIELDS)])
    error = np.stack([generator(SEED, "noise", f).standard_normal(OBSERVED) for f in range(FIELDS)])
    values = np.take_along_axis(u.flatten(1).numpy(), index, axis=1) + noise * error
    posterior = Posterior(problem, gaussian(problem), None, Nodes(torch.from_numpy(index), noise), values)
    return latent_of(posterior, index, values, noise), posterior


def latent_of(posterior: Posterior, index: np.ndarray, values: np.ndarray, noise: float) -> Latent:
    variance = torch.full(index.shape, noise**2, dtype=torch.float64)
    places = (torch.from_numpy(part) for part in (index, values))
    return Latent(posterior.problem, posterior.functionals, *places, variance)


def exact_moments(latent: Latent) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean [n, P] and covariance [n, P, P] of the white coefficients, from the columns of M G one by one."""
    basis = torch.eye(len(latent.modes), dtype=torch.float64).expand(FIELDS, -1, -1)
    jacobian = latent.predict(basis).transpose(1, 2)
    precision = torch.linalg.inv(torch.eye(basis.shape[1]) + jacobian.transpose(1, 2) @ (jacobian / latent.variance[..., None]))
    mean = precision @ jacobian.transpose(1, 2) @ (latent.values / latent.variance)[..., None]
    return mean[..., 0], precision


@pytest.fixture(scope="module")
def found(task):
    latent, _ = task
    run = [(state, ended) for state, ended in Chains(latent, BUDGET, SEED, range(FIELDS)).run()]
    return dict(pair for _, ended in run for pair in ended)


def test_chains_reproduce_the_closed_form(task, found):
    """Mean and standard deviation at every node, within what independent draws of that number would miss by.

    The mean of E draws has an error of std / E^½: its root mean square over the nodes, 1 in these units, is allowed 1.6, as the
    nodes are not independent. That of the standard deviation is std / (2 E)^½.
    """
    latent, _ = task
    mean, covariance = exact_moments(latent)
    exact_mean = latent.coefficient(mean)
    for row, reference in found.items():
        roots = latent.coefficient(torch.linalg.cholesky(covariance[row]).T)
        exact_std = roots.square().sum(dim=0).sqrt()
        draws = min(reference.diagnosis.ess_bulk, BUDGET.chains * BUDGET.steps / chains.RECORD_EVERY)
        assert reference.diagnosis.converged or reference.diagnosis.r_hat < 1.02
        errors = (reference.mean - exact_mean[row]) / exact_std * draws**0.5
        assert float(errors.square().mean().sqrt()) < 1.6
        spread = (reference.std / exact_std - 1) * (2 * draws) ** 0.5
        assert float(spread.square().mean().sqrt()) < 1.6
    assert set(found) == {0, 1}


def test_where_the_operator_is_linear_proposals_are_draws_of_the_posterior(found):
    """Least squares over linear predictions are exact: steps of size 1 that are nearly always accepted."""
    assert all(reference.size == 1 and reference.acceptance > 0.9 for reference in found.values())


def test_draws_are_spread_over_all_chains(found):
    for reference in found.values():
        assert reference.draws.shape == (BUDGET.samples, SIZE, SIZE)
        assert len(reference.draws.flatten(1).unique(dim=0)) > 0.9 * BUDGET.samples
        assert float((reference.draws.mean(dim=0) - reference.mean).norm() / reference.mean.norm()) < 0.2


def test_plain_steps_leave_the_posterior_invariant_whatever_the_proposal(task):
    """From exact draws, after 40 steps with a wrong proposal: the squared Mahalanobis distance stays that of the posterior.

    512 chains of 255 modes: the mean of |z|² in the posterior's coordinates is 255 ± 255 (2 / 255 / 512)^½ = 255 ± 1.
    """
    latent, _ = task
    mean, covariance = exact_moments(latent)
    modes, draws = mean.shape[1], 512
    one = replace(latent, **{name: getattr(latent, name)[:1] for name in ("index", "values", "variance")})
    root, rng = torch.linalg.cholesky(covariance[:1]), torch.Generator().manual_seed(3)
    z = mean[:1, None] + torch.randn(1, draws, modes, generator=rng, dtype=torch.float64) @ root.transpose(1, 2)
    wrong = Proposal.prior(1, 100)
    wrong = Proposal(wrong.mean + 0.2, wrong.root * 0.7)
    moved, size = torch.zeros(draws), torch.tensor([0.05], dtype=torch.float64)
    misfit = one.misfit(one.predict(z))
    for _ in range(40):
        proposed, ratio = wrong.step(z, torch.randn(z.shape, generator=rng, dtype=torch.float64), size)
        after = one.misfit(one.predict(proposed))
        accept = torch.rand(1, draws, generator=rng).double() < (misfit - after + ratio).exp()
        z, misfit, moved = torch.where(accept[..., None], proposed, z), torch.where(accept, after, misfit), moved + accept[0]
    white = torch.linalg.solve_triangular(root, (z - mean[:1, None]).transpose(1, 2), upper=False)
    assert float(white.square().sum(dim=1).mean()) == pytest.approx(modes, abs=4)
    assert 0.1 < float(moved.mean() / 40) < 0.9


def test_the_proposal_of_a_linear_model_is_its_posterior():
    """With as many states as it takes, M G = J z of 6 modes and 4 values."""
    rng = torch.Generator().manual_seed(5)
    jacobian, z = (torch.randn(*shape, generator=rng, dtype=torch.float64) for shape in ((4, 6), (1, 4000, 6)))
    values, variance = torch.ones(1, 4, dtype=torch.float64), torch.full((1, 4), 0.04, dtype=torch.float64)
    proposal = Proposal.prior(1, 6)
    for _ in range(3):  # the ridge of the least squares leaves its mark on the first
        proposal = fitted(proposal, z, z @ jacobian.T, values, variance)
    covariance = torch.linalg.inv(torch.eye(6) + jacobian.T @ jacobian / 0.04)
    assert torch.allclose(proposal.root[0] @ proposal.root[0].T, covariance, atol=2e-3)
    assert torch.allclose(proposal.mean[0], covariance @ jacobian.T @ values[0] / 0.04, atol=1e-2)


def test_interrupted_chains_go_on_as_if_they_had_not_been(task):
    latent, _ = task
    budget = Budget(samples=16, chains=8, burn_in=20, steps=24)
    whole = [pair for _, ended in Chains(latent, budget, SEED, range(FIELDS)).run() for pair in ended]
    state, _ = next(islice(Chains(latent, budget, SEED, range(FIELDS)).run(), 30, None))
    copied = State(**{name: tensor.clone() for name, tensor in state.tensors().items()}, **state.counters())
    rest = [pair for _, ended in Chains(latent, budget, SEED, range(FIELDS)).run(copied) for pair in ended]
    for (row, ours), (other, theirs) in zip(whole, rest, strict=True):
        assert row == other and torch.equal(ours.draws, theirs.draws) and torch.equal(ours.mean, theirs.mean)


def test_chains_that_cannot_converge_in_their_budget_say_so(task):
    latent, _ = task
    budget = Budget(samples=8, chains=8, burn_in=10, steps=16)
    ends = [reference for _, ended in Chains(latent, budget, SEED, range(FIELDS)).run() for _, reference in ended]
    assert len(ends) == FIELDS and not any(reference.diagnosis.converged for reference in ends)


def test_a_threshold_of_the_field_is_drawn_from_as_two_valued():
    """Darcy, noise of half the solution's spread: every draw takes the two values alone, and Φ is about m / 2."""
    problem = make_problem("darcy", {}, SIZE)
    solutions = problem.solve(problem.sample_coefficients(range(2), SIZE, SEED))
    index, noise = draw_nodes(square(SIZE), OBSERVED, SEED, 0)[None], 0.5 * float(solutions.std())
    values = solutions[0].flatten()[index[0]].numpy() + noise * generator(SEED, "noise", 0).standard_normal(OBSERVED)
    flat = torch.arange(SIZE**2)[:, None]
    variance = torch.full(index.shape, noise**2, dtype=torch.float64)
    latent = Latent(problem, Functionals(flat, None, SIZE**2), torch.from_numpy(index), torch.from_numpy(values[None]), variance)
    run = Chains(latent, Budget(samples=32, chains=16, burn_in=200, steps=200), SEED, [0]).run()
    [(_, reference)] = [pair for _, ended in run for pair in ended]
    assert set(reference.draws.unique().tolist()) == {3.0, 12.0} and float(reference.std.max()) > 1
    u = problem.solve(reference.draws).flatten(1)[:, index[0]]
    misfit = (u - latent.values).square().sum(dim=1) / (2 * noise**2)
    assert float(misfit.mean()) == pytest.approx(OBSERVED / 2, abs=5)  # 15 ± 4 for one draw of a chi-square, 32 correlated draws


def test_the_kernel_on_the_mean_absolute_error_counts_all_values_as_one(task):
    """Errors of 3 σ everywhere: Φ is 9 / 2, and not m times that as for independent errors."""
    latent, _ = task
    kernel = replace(latent, likelihood="mean-absolute")
    predicted = latent.values[:, None] + 3 * latent.variance.sqrt()[:, None]
    assert torch.allclose(kernel.misfit(predicted), torch.full((FIELDS, 1), 4.5, dtype=torch.float64))
    assert torch.allclose(latent.misfit(predicted), torch.full((FIELDS, 1), 4.5 * OBSERVED, dtype=torch.float64))


def test_a_problem_without_a_latent_field_is_refused(task):
    latent, _ = task
    problem = make_problem("poisson", {"alpha": (1.5, 3.0)}, SIZE)
    with pytest.raises(InputError, match="no known map of a Gaussian field"):
        replace(latent, problem=problem)
