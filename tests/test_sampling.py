"""Schedules, guidance gradients and likelihood steps against closed forms and finite differences."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from batches import last_state, make_batch

from ddis.errors import InputError
from ddis.fields.bases import basis
from ddis.fields.noise import WhiteNoise
from ddis.grid import square
from ddis.models.denoiser import SIGMA_DATA
from ddis.models.normalisation import Normalisation
from ddis.observe.base import Functionals, node_functions
from ddis.observe.nodes import Nodes, available_nodes, draw_nodes
from ddis.observe.observation import Observation
from ddis.operators.error import OperatorError, error_growth, operator_error_model
from ddis.operators.solver import Solver
from ddis.pde import make_problem
from ddis.priors.gaussian import of_spectrum
from ddis.randomness import generator
from ddis.sampling.base import Batch, Cost, State
from ddis.sampling.ddis import DDIS, DDISSettings
from ddis.sampling.dps import DPSSettings, guided_ode
from ddis.sampling.langevin import LangevinStep
from ddis.sampling.methods import METHODS, load_method, run_settings
from ddis.sampling.schedules import heun_step, karras_schedule, solve_ode

SIZE = 8


def make_task(chains: int = 2, fields: int = 1, chosen: slice = slice(None)) -> Batch:
    """Poisson at 8 x 8, five observations a field, a Gaussian prior (of independent channels), white noise."""
    problem, modes = make_problem("poisson", {}, SIZE), basis("cosine", SIZE)
    spectrum = torch.full((SIZE, SIZE), 0.25, dtype=torch.float64)
    prior = of_spectrum(modes, torch.zeros_like(spectrum), spectrum, Normalisation(0.0, SIGMA_DATA), WhiteNoise())
    solver = Solver(problem, Normalisation(0.0, SIGMA_DATA / 20))  # 1 is 1/20 in physical units
    values = np.full((fields, 5), 0.3 / 20)
    generators = [generator(0, "chain", f, k) for f in range(fields)[chosen] for k in range(chains)]
    return make_batch(problem, prior, solver, Nodes(5, noise=0.1 / 20), values, generators, chosen)


def test_karras_schedule():
    levels = karras_schedule(10.0, 0.01, 5)
    assert levels[0] == pytest.approx(10.0) and levels[-2] == pytest.approx(0.01) and levels[-1] == 0
    assert levels[2] == pytest.approx(((10 ** (1 / 7) + 0.01 ** (1 / 7)) / 2) ** 7)
    assert karras_schedule(3.0, 0.1, 1) == pytest.approx([3.0, 0.0])


def test_five_heun_steps_take_nine_evaluations():
    cost, task = Cost(), make_task()
    assert task.prior is not None
    solve_ode(cost.count_prior(task.prior), torch.randn(2, 1, SIZE, SIZE), 3.0, steps=5)
    assert cost.prior == 2 * 9


def test_heun_is_of_second_order_on_the_exact_flow_of_a_gaussian():
    """For variance c and white noise the flow is x(s) = x(s0) sqrt((c + s²)/(c + s0²))."""
    task = make_task()
    x = torch.randn(1, 1, SIZE, SIZE, dtype=torch.float64)
    exact = x * np.sqrt((0.25 + 0.1**2) / (0.25 + 2.0**2))
    errors = []
    for steps in (8, 16, 32):
        y, levels = x, np.geomspace(2.0, 0.1, steps + 1)
        for level, following in pairwise(levels):
            y, _ = heun_step(task.prior, y, float(level), float(following))
        errors.append(float((y - exact).norm()))
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.all((orders > 1.8) & (orders < 2.3)), orders


def test_one_ode_step_is_the_posterior_mean():
    task = make_task()
    x = torch.randn(2, 1, SIZE, SIZE)
    assert torch.allclose(solve_ode(task.prior, x, 0.7, steps=1), x * 0.25 / (0.25 + 0.49), atol=1e-6)


def test_nodes_are_distinct_interior_and_the_same_for_all_runs():
    nodes = draw_nodes(square(16), 100, 3, 5)
    assert len(set(nodes)) == 100 and set(nodes) <= set(available_nodes(square(16)))
    rows, columns = np.divmod(nodes, 16)
    assert rows.min() >= 1 and rows.max() <= 14 and columns.min() >= 1 and columns.max() <= 14
    assert np.array_equal(nodes, draw_nodes(square(16), 100, 3, 5))
    assert not np.array_equal(nodes, draw_nodes(square(16), 100, 3, 6))
    assert len(available_nodes(square(16, True))) == 256


def test_nodes_may_be_on_the_boundary_and_the_same_for_all_fields():
    """All 16 nodes of 4 x 4 can be had with the boundary; a shared draw does not depend on the field."""
    assert np.array_equal(draw_nodes(square(4), 16, 3, 5, boundary=True), np.arange(16))
    shared = Nodes(20, shared=True)
    assert np.array_equal(shared.draw(square(16), 3, 0), shared.draw(square(16), 3, 1))
    assert not np.array_equal(shared.draw(square(16), 3, 0), shared.draw(square(16), 4, 0))


@pytest.mark.parametrize("count", [0, 197])
def test_more_observations_than_nodes_or_none_is_an_error(count):
    with pytest.raises(InputError, match=f"{count}.*1 to 196"):
        draw_nodes(square(16), count, 0, 0)


def test_error_covariance_is_that_of_a_field_with_the_spectrum():
    """Dense: R = v I + Φ diag(e) Φᵀ; and the spectrum is recovered from fields drawn from it (2,000 fields, rings, 15 %)."""
    modes, index = basis("cosine", SIZE), torch.tensor([[3, 20, 41]])
    k = torch.from_numpy(np.hypot.outer(*modes.axis_frequencies)).round()
    spectrum = 1.0 / (1 + k) ** 2
    field = modes.inverse(torch.eye(SIZE**2, dtype=torch.float64).reshape(-1, SIZE, SIZE)).flatten(1)
    expected = 0.1 * torch.eye(3, dtype=torch.float64) + field.T[index[0]] @ torch.diag(spectrum.flatten()) @ field.T[index[0]].T
    places = Functionals(torch.arange(SIZE**2)[:, None], None, SIZE**2)
    values = torch.full((1, 3), SIGMA_DATA, dtype=torch.float64)  # of common size, so that the error is too
    observation = Observation(
        places, index, values, torch.tensor(0.1, dtype=torch.float64), OperatorError(modes, spectrum=spectrum)
    )
    assert torch.allclose(observation.covariance[0], expected, atol=1e-12)
    assert torch.allclose(node_functions(modes, index).flatten(2)[0], field.T[index[0]], atol=1e-12)


def test_the_operators_error_is_what_is_left_of_the_solution_after_its_gain():
    """2,000 pairs with u = g G(a) + e of known g and variance in rings: both are found (2 % and 15 %; seed 0)."""
    modes = basis("cosine", SIZE)
    k = torch.from_numpy(np.hypot.outer(*modes.axis_frequencies)).round()
    gain, spectrum = 0.5 + k / 10, 1e-3 / (1 + k) ** 2
    torch.manual_seed(0)
    prediction, rest = torch.randn(2, 2000, SIZE, SIZE, dtype=torch.float64)
    solution = modes.inverse(gain * prediction + spectrum.sqrt() * rest)
    growth = float(error_growth(solution.flatten(1)).mean())
    found, variance = operator_error_model(modes.inverse(prediction), solution, modes)
    assert torch.allclose(found, gain, rtol=0.02)
    assert torch.allclose(variance * growth, spectrum, rtol=0.15)


@pytest.mark.parametrize("pairs", [1, 2, 10])
def test_few_pairs_neither_change_a_good_operator_nor_make_it_perfect(pairs):
    """Independent errors of 5 %, 200 draws of held-out pairs: a gain departs from 1 by at most 7 % on average (one pair tells
    that of a single mode to 5 % or worse), the variance of a mode is at least 0.7 of the true one on average (seed 0)."""
    modes = basis("cosine", SIZE)
    torch.manual_seed(0)
    prediction, rest = torch.randn(2, 200, pairs, SIZE, SIZE, dtype=torch.float64)
    solution = prediction + 0.05 * rest
    growth = error_growth(solution.flatten(2).flatten(0, 1)).mean()
    found = [operator_error_model(p, u, modes) for p, u in zip(prediction, solution, strict=True)]
    assert torch.stack([gain for gain, _ in found]).sub(1).abs().mean(dim=0).max() < 0.07
    assert torch.stack([variance for _, variance in found]).mean(dim=0).min() * growth > 0.7 * 0.05**2


def test_a_perfect_operator_has_no_error_and_one_that_gives_nothing_keeps_all_of_it():
    modes = basis("cosine", SIZE)
    torch.manual_seed(0)
    solution = torch.randn(5, SIZE, SIZE, dtype=torch.float64)
    gain, variance = operator_error_model(solution, solution, modes)
    assert torch.equal(gain, torch.ones_like(gain)) and float(variance.max()) == 0
    gain, variance = operator_error_model(0 * solution, solution, modes)
    assert torch.equal(gain, torch.ones_like(gain)) and float(variance.min()) > 0


@pytest.mark.parametrize("squared", [False, True])
def test_langevin_gradient_against_finite_differences(squared):
    task = make_task()
    task.operator = lambda x: 20 * task.problem.solve(x) + x**2
    step = LangevinStep(task, weight=2.0, tau=0.5, steps=1, learning_rate=1e-3, temperature=0.0, squared=squared)
    x = torch.randn(2, SIZE, SIZE, dtype=torch.float64)

    def loss(x):
        misfit = task.predict(x) - task.observation.values.repeat_interleave(2, dim=0)
        size = misfit.square() if squared else misfit.abs()
        return float(size.mean(dim=1).sum()) * 2.0 / (2 * 0.5**2)

    direction, h = torch.randn_like(x), 1e-6
    numeric = (loss(x + h * direction) - loss(x - h * direction)) / (2 * h)
    assert float((step.gradient(x) * direction).sum()) == pytest.approx(numeric, rel=1e-5)


@pytest.mark.parametrize("variance", [1e-9, 1e9])
def test_langevin_with_the_operators_error_pulls_no_more_than_the_weight_and_no_more_than_the_likelihood(variance):
    """R -> 0: the gradient as published. Large R: that of the misfits' Gaussian likelihood with the diagonal of R."""
    task = make_task()
    task.operator = lambda x: 20 * task.problem.solve(x) + x**2
    correlated = variance * (torch.eye(task.observation.index.shape[1], dtype=torch.float64) + 0.3)
    error = type("Fixed", (), {"covariance": lambda self, observation: correlated.expand(len(observation.index), -1, -1)})()
    task.observation = replace(task.observation, variance=0 * task.observation.variance, error=error)
    x = torch.randn(2, SIZE, SIZE, dtype=torch.float64, requires_grad=True)
    arguments = {"weight": 2.0, "tau": 0.5, "steps": 1, "learning_rate": 1e-3, "temperature": 0.0}
    gradient = LangevinStep(task, **arguments, robust=True).gradient(x)
    misfit = task.observation.misfit(task.predict(x))
    gaussian = torch.autograd.grad((misfit**2).sum() / (2 * 1.3 * variance), x)[0]
    expected = LangevinStep(task, **arguments).gradient(x) if variance < 1 else gaussian
    assert torch.allclose(gradient, expected, rtol=1e-9, atol=0)


def test_the_mean_squared_loss_is_a_setting_that_counts_only_where_it_is_chosen():
    plain, squared = DDISSettings(method="ddis"), DDISSettings(method="ddis", loss="mean-squared")
    assert "loss" not in plain.model_dump() and squared.model_dump()["loss"] == "mean-squared"
    task = make_task()
    assert [LangevinStep.of(task, each, 1.0).squared for each in (plain, squared)] == [False, True]
    both = DDIS(squared.model_copy(update={"error_model": "spectral"}))
    with pytest.raises(InputError, match=r"mean-squared.*error_model"):
        both.check(task.problem, SIZE)


def test_langevin_without_observations_has_the_variance_of_its_discretisation():
    """x <- x - r (x - x0)/σ² + sqrt(2 r) n from x0 has the variance 2 r (1 - q^2n)/(1 - q²) after n steps, q = 1 - r/σ².

    500 chains x 64 nodes: 5 standard errors of a variance, 5 sqrt(2/32000).
    """
    task = make_task(chains=500)
    rate, sigma, steps = 0.02, 0.3, 8
    step = LangevinStep(task, weight=0.0, tau=1.0, steps=steps, learning_rate=rate, temperature=1.0)
    x = step(torch.zeros(500, SIZE, SIZE), torch.zeros(500, 1, SIZE, SIZE), sigma, progress=0.0)
    q = 1 - rate / sigma**2
    expected = 2 * rate * (1 - q ** (2 * steps)) / (1 - q**2)
    assert float(x.var()) == pytest.approx(expected, rel=5 * np.sqrt(2 / 32000))


@pytest.mark.parametrize("share", [None, 0.04])
def test_langevin_rate_falls_to_a_share_of_the_first(share):
    """One percent unless it is set. Without a likelihood a step is sqrt(2 lr) n, so its spread falls like the root."""
    task, rest = make_task(), {} if share is None else {"last_rate": share}
    step = LangevinStep.of(task, DDISSettings(method="ddis", langevin_steps=1, temperature=1.0, **rest), 0.0)
    zero = torch.zeros(2, SIZE, SIZE)
    first, last = (float(step(zero, zero, 1e6, progress).std()) for progress in (0.0, 1.0))
    assert first / last == pytest.approx((share or 0.01) ** -0.5, rel=0.3)


@pytest.mark.parametrize(("loss", "expected"), [("mse", 12.5), ("rms", 12.5**0.5), ("mean-absolute", 3.5)])
def test_losses_of_dps_are_means_over_the_observations_of_a_chain(loss, expected):
    settings = DPSSettings(method="ddis-dps", loss=loss)
    assert settings.reduce(torch.tensor([[3.0, -4.0], [0.0, 0.0]])).tolist() == pytest.approx([expected, 0.0])


def test_dps_gradient_against_finite_differences():
    """The first step is x_next = Heun(x) - ∇ loss(D(x)); the gradient by central differences of loss(D(Heun(x)))."""
    task, levels = make_task(), np.array([2.0, 1.0, 0.0])
    torch.manual_seed(0)
    start = torch.randn(2, 2, SIZE, SIZE)
    task.noise = type("Fixed", (), {"sample": lambda self, shape, generators, device: start.clone()})()
    task.prior = lambda x, s: torch.tanh(x) / (1 + s[:, None, None, None])

    def loss(x0_hat, sigma):
        return ((task.predict_joint(x0_hat) - 0.3) ** 2).mean(dim=1) + (x0_hat[:, 0] ** 3).flatten(1).sum(dim=1)

    def last_denoised(x):
        return heun_step(task.prior, x, 2.0, 1.0)

    x = (2.0 * start).double()
    direction, h = torch.randn_like(x), 1e-6
    numeric = [float(loss(last_denoised(x + s * h * direction)[1], 2.0).sum()) for s in (1, -1)]
    states = list(guided_ode(task, 2, loss, levels))
    leaf = x.clone().requires_grad_()
    gradient = torch.autograd.grad(loss(last_denoised(leaf)[1], 2.0).sum(), leaf)[0]
    assert float((gradient * direction).sum()) == pytest.approx((numeric[0] - numeric[1]) / (2 * h), rel=1e-6)
    after_first = last_denoised(x)[0] - gradient
    final, _ = heun_step(task.prior, after_first.float(), 1.0, 0.0)
    assert torch.allclose(states[-1].x0, final[:, 0], atol=1e-4)
    assert [s.step for s in states] == [1, 2]


def test_fundps_loss_has_one_value_a_field_and_its_own_observation():
    """Two fields with different observations: a chain of the second must not feel the first's."""
    settings = run_settings("fundps", {"steps": 3, "weight": 5.0, "samples": 2})
    finals = []
    for task in (make_task(fields=2), make_task(fields=2, chosen=slice(1, 2))):
        *_, last = load_method("fundps")(settings).sample(task, None)
        finals.append(last.x0)
    assert torch.allclose(finals[0][2:], finals[1], atol=1e-5)


def test_fundps_guidance_is_multiplied_by_sigma_below_one_and_has_the_residual_only_there(monkeypatch):
    """c = 1 for the observations and 0 for the equation while σ > 1, both σ below (FunDPS)."""
    captured = []
    monkeypatch.setattr("ddis.sampling.fundps.guided_ode", lambda task, channels, loss, levels: captured.append(loss) or iter(()))
    task, x0_hat = make_task(), torch.randn(2, 2, SIZE, SIZE)
    for residual_weight in (0.0, 3.0):
        settings = run_settings("fundps", {"weight": 5.0, "residual_weight": residual_weight})
        list(load_method("fundps")(settings).sample(task, None))
    plain, full = captured
    assert torch.allclose(plain(x0_hat, 0.1), 0.1 * plain(x0_hat, 1.0)) and torch.equal(plain(x0_hat, 7.0), plain(x0_hat, 1.0))
    residual = (task.residual(x0_hat) ** 2).flatten(1).mean(dim=1)
    assert torch.equal(full(x0_hat, 7.0), plain(x0_hat, 7.0))
    assert torch.allclose(full(x0_hat, 0.1) - plain(x0_hat, 0.1), 0.1 * 3.0 * residual, rtol=1e-4)


def test_costs_count_forward_and_vector_jacobian_products():
    task = make_task()
    zero = torch.zeros(2, SIZE, SIZE)
    LangevinStep(task, 1.0, 1.0, steps=3, learning_rate=1e-3, temperature=0.1)(zero, zero, 1.0, 0.0)
    assert task.cost.operator == 2 * 3 * 2


@pytest.mark.parametrize("name", list(METHODS.builtin))
def test_every_method_yields_its_steps_and_finite_samples(name):
    known = load_method(name).Settings.model_fields
    settings = {key: value for key, value in (("steps", 3), ("weight", 0.01)) if key in known}
    task, method = make_task(fields=2), load_method(name)(run_settings(name, settings))
    states = list(method.sample(task, method.prepare(task)))
    assert isinstance(states[-1], State) and states[-1].step == len(states) <= states[-1].steps
    assert states[-1].step == states[-1].steps or name == "tikhonov"  # which stops when it has converged
    assert states[-1].x0.shape == (4, SIZE, SIZE) and bool(torch.isfinite(states[-1].x0).all())


def test_a_chain_with_an_infinite_prediction_is_lost_to_tikhonov_and_the_other_is_not():
    """Infinite at the last observed node alone, from which no NaN arises."""
    task = make_task(chains=2)
    last = int(task.observation.index[0, -1])

    def operator(x):
        u = 20 * task.problem.solve(x).flatten(1)
        u[1:, last] += torch.inf
        return u.reshape(x.shape)

    task.operator = operator
    state = last_state(task, "tikhonov")
    assert state.x0[0].isfinite().all() and state.x0[1].isnan().all()


def test_unknown_method_and_setting_are_errors_that_say_what_is_accepted():
    with pytest.raises(
        InputError, match=r"'nope' is unknown; accepted: ddis, ddis-gn, ddis-dps, fundps, diffusionpde, joint-daps, exact"
    ):
        run_settings("nope", {})
    with pytest.raises(InputError, match=r"wieght: unknown key \(got 1\); settings of ddis: .*weight"):
        run_settings("ddis", {"wieght": 1})
