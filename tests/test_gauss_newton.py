"""Products with Jacobians, conjugate gradients, and the matrix-free Gauss-Newton step against dense linear algebra."""

import numpy as np
import pytest
import torch
from batches import last_state, make_batch, method_of

from ddis.fields.bases import basis
from ddis.fields.noise import DiagonalNoise, RandomFieldNoise
from ddis.grid import Space, square
from ddis.linear import conjugate_gradients
from ddis.models.architectures.fno import FNO
from ddis.models.normalisation import Normalisation
from ddis.models.operator import NeuralOperator
from ddis.observe.nodes import Nodes, draw_nodes
from ddis.operators.error import OperatorError
from ddis.operators.solver import Solver
from ddis.pde import make_problem
from ddis.priors import gaussian
from ddis.randomness import generator
from ddis.sampling import matrix_free
from ddis.sampling.base import Batch
from ddis.sampling.covariance import AverageSpectrum, conditional_spectrum
from ddis.sampling.daps import anneal
from ddis.sampling.ddis_gn import DDISGNSettings, dense_is_cheaper
from ddis.sampling.gauss_newton import DenseUpdate, GaussNewtonStep, SharedJacobian
from ddis.sampling.linearisation import Linearisation
from ddis.sampling.matrix_free import LeadingModes, MatrixFreeUpdate
from ddis.sampling.schedules import karras_schedule

SIZE, OBSERVED = 8, 12


def make_task(pde: str = "poisson", samples: int = 2, fields: int = 2, size: int = SIZE) -> Batch:
    """Observations of `fields` solutions with 2 % noise, different nodes for each; the exact denoiser of a Gaussian."""
    torch.set_num_threads(1)
    problem = make_problem(pde, {"coefficient": "log-normal"} if pde == "darcy" else {}, size)
    coefficients = problem.sample_coefficients(range(fields), size, 5)
    solutions = problem.solve(coefficients)
    solution = Normalisation(float(solutions.mean()), float(solutions.std()))
    modes, grid = basis(problem.basis, size), square(size, problem.basis == "fourier")
    noise = DiagonalNoise(RandomFieldNoise(grid, "exponential", 0.1), modes)
    prior = gaussian(problem, noise)
    operator = Solver(problem, solution)
    operator.error = OperatorError(modes, spectrum=1e-4 * prior.spectrum)
    sensors = Nodes([draw_nodes(grid, OBSERVED, 3, f) for f in range(fields)], 0.01 * 2 * solution.std)
    values = np.stack([u.flatten().numpy()[index] for u, index in zip(solutions, sensors.index, strict=True)])
    generators = [generator(1, "chain", f, k) for f in range(fields) for k in range(samples)]
    return make_batch(problem, prior, operator, sensors, values, generators)


def fno() -> NeuralOperator:
    torch.manual_seed(0)
    unit = Normalisation(0.0, 0.5)
    network = NeuralOperator(FNO(modes=6, width=8, layers=2), (Space(square(16)),) * 2, unit, unit)
    for parameter in network.parameters():  # .double() leaves complex weights alone
        parameter.data = parameter.data.to(torch.complex128 if parameter.is_complex() else torch.float64)
    return network.eval().requires_grad_(False)


@pytest.mark.parametrize("pde", ["poisson", "helmholtz", "darcy", "navier-stokes", "fno"])
def test_products_with_the_jacobian(pde):
    """J v against central differences (1e-6 of float64), and zᵀ(J v) = (Jᵀz)ᵀv to rounding (1e-9)."""
    task = make_task("poisson" if pde == "fno" else pde)
    if pde == "fno":
        task.operator = fno()
    torch.manual_seed(1)
    x, v = (0.3 * torch.randn(4, SIZE, SIZE, dtype=torch.float64) for _ in range(2))
    linear = Linearisation(x, task.predict, task.cost)
    pushed, h = linear.push(v), 1e-5
    ahead, behind = (task.predict(x + s * h * v) for s in (1, -1))
    assert torch.allclose(pushed, (ahead - behind) / (2 * h), atol=1e-6 * float(pushed.abs().max()))
    z = torch.randn_like(pushed)
    assert torch.allclose((z * pushed).sum(1), (linear.pull(z) * v).flatten(1).sum(1), rtol=1e-9)


def test_costs_count_both_passes_and_every_product():
    task = make_task()
    linear = Linearisation(torch.zeros(4, SIZE, SIZE), task.predict, task.cost)
    assert task.cost.operator == 2 * 4
    linear.push(torch.ones(4, SIZE, SIZE))
    assert task.cost.operator == 3 * 4
    linear.pull(torch.ones(4, OBSERVED))
    assert task.cost.operator == 4 * 4


def equations(chains: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(2)
    roots = torch.randn(chains, 1, 30, 30, dtype=torch.float64)
    return roots @ roots.transpose(-1, -2) + torch.eye(30), torch.randn(chains, 1, 30, dtype=torch.float64)


def conjugate(apply, right: torch.Tensor, precondition, tolerance: float, most: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Conjugate gradients that stop where the root mean square of the residual is at most the tolerance."""

    def solved(residual: torch.Tensor, rho: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        return ~(residual.square().mean(dim=-1, keepdim=True) > tolerance**2)

    return conjugate_gradients(apply, right, precondition, solved, most, axes=(-1,))


def test_conjugate_gradients_against_a_dense_solve():
    matrices, right = equations(3)
    z, left = conjugate(lambda p: (matrices @ p[..., None])[..., 0], right, lambda r: 2 * r, 1e-10, 200)
    assert not bool(left.any())
    assert torch.allclose(z, torch.linalg.solve(matrices, right[..., None])[..., 0], atol=1e-7)


def test_a_chain_stops_by_itself_and_a_failed_one_leaves_the_others_alone():
    matrices, right = equations(3)
    right[1] *= 1e-3  # below the tolerance from the start
    right[2, 0, 5] = torch.nan
    calls = 0

    def apply(p: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return (matrices[: len(p)] @ p[..., None])[..., 0]

    together, _ = conjugate(apply, right, lambda r: r, 0.05, 200)
    alone, _ = conjugate(apply, right[:1], lambda r: r, 0.05, 200)
    assert (
        torch.allclose(together[0], alone[0], rtol=1e-9)
        and float(together[1].abs().max()) == 0
        and bool(together[2].isnan().any())
    )
    residual = (matrices[0] @ together[0, ..., None])[..., 0] - right[0]
    assert 0 < float(residual.square().mean().sqrt()) <= 0.05 and 2 < calls < 100


def test_conjugate_gradients_that_do_not_arrive_say_so(monkeypatch, caplog):
    matrices, right = equations(3)
    _, left = conjugate(lambda p: (matrices @ p[..., None])[..., 0], right, lambda r: r, 1e-10, 3)
    assert left.flatten().tolist() == [True] * 3
    monkeypatch.setattr(matrix_free, "MOST_ITERATIONS", 1)
    last_state(make_task("poisson"), "ddis-gn", samples=2, solver="matrix-free", tolerance=1e-9)
    assert "conjugate gradients stopped after 1 iterations, before the tolerance" in caplog.text


@pytest.mark.parametrize("pde", ["poisson", "helmholtz"])
def test_matrix_free_samples_agree_with_dense_ones_where_g_is_linear(pde):
    """To 1e-4 of their size for a tolerance of 1e-3, and to 3e-2 for the default of 0.3 standard deviations of R."""

    def samples(**settings) -> torch.Tensor:
        return last_state(make_task(pde), "ddis-gn", samples=2, **settings).x0

    dense = samples(solver="dense")
    for tolerance, allowed in ((1e-3, 1e-4), (0.3, 3e-2)):
        difference = samples(solver="matrix-free", tolerance=tolerance) - dense
        assert float(difference.norm() / dense.norm()) < allowed


def test_matrix_free_update_is_that_of_the_chains_own_jacobian():
    """Navier-Stokes: against (J Σ Jᵀ + R)⁻¹ with J by finite differences, chain by chain (1e-5)."""
    task = make_task("navier-stokes")
    torch.manual_seed(3)
    point, x_tilde = (
        task.basis.inverse(task.spectrum.sqrt() * torch.randn(4, SIZE, SIZE, dtype=torch.float64)) for _ in range(2)
    )
    x_tilde = task.basis.forward(x_tilde)
    variance = conditional_spectrum(task.spectrum, task.noise.spectrum(task.basis), 1.0)
    target = task.observation.values[:, None].expand(2, 2, OBSERVED).contiguous()
    got = MatrixFreeUpdate(task, LeadingModes(task, count=20), tolerance=1e-7)(point, x_tilde, target, variance).reshape(4, -1)
    units = task.basis.inverse(torch.eye(SIZE**2, dtype=torch.float64).reshape(-1, SIZE, SIZE))
    h = 1e-5
    for chain in range(4):
        nodes, covariance = task.observation.index[chain // 2], task.observation.covariance[chain // 2]
        ahead, behind = (task.operator(point[chain] + s * h * units).flatten(1)[:, nodes] for s in (1, -1))
        rows = ((ahead - behind) / (2 * h)).T
        predicted = task.operator(point[chain : chain + 1]).flatten(1)[0, nodes]
        shift = (x_tilde[chain] - task.basis.forward(point[chain])).flatten()
        residual = target[chain // 2, chain % 2] - predicted - rows @ shift
        weighted = rows * variance.flatten()
        expected = weighted.T @ torch.linalg.solve(weighted @ rows.T + covariance, residual)
        assert torch.allclose(got[chain], expected, atol=1e-5 * float(expected.abs().max()))


def test_one_jacobian_for_all_chains_is_wrong_where_g_is_not_linear():
    """Negative control: at a point away from 0, the dense update of navier-stokes is off by more than a tenth."""
    task = make_task("navier-stokes", samples=1, fields=1)
    point = task.basis.inverse(task.spectrum.sqrt() * torch.from_numpy(np.random.default_rng(0).standard_normal((1, SIZE, SIZE))))
    x_tilde = task.basis.forward(point)
    variance = conditional_spectrum(task.spectrum, task.noise.spectrum(task.basis), 1.0)
    target = task.observation.values[:, None]
    own = MatrixFreeUpdate(task, LeadingModes(task), 1e-7)(point, x_tilde, target, variance)
    shared = DenseUpdate(task, SharedJacobian(task))(point, x_tilde, target, variance)
    assert float((own - shared).norm() / own.norm()) > 0.1


def test_preconditioner_saves_iterations():
    """Poisson, solver: with the leading modes at most half of the products that are needed with a single mode."""
    costs = []
    for count in (1, 64):
        task = make_task(fields=1)
        update = MatrixFreeUpdate(task, LeadingModes(task, count), tolerance=0.1)
        task.cost.operator = 0
        *_, last = anneal(task, GaussNewtonStep(task, update, AverageSpectrum(task)), karras_schedule(10.0, 0.01, 4), 1)
        assert bool(last.x0.isfinite().all())
        costs.append(task.cost.operator)
    assert costs[1] <= costs[0] / 2


def test_masks_that_differ_cost_no_products_in_the_leading_modes():
    costs = []
    for fields in (1, 4):
        task = make_task(fields=fields)
        columns = LeadingModes(task, 10)(task.observation.index)
        assert columns.shape == (fields, OBSERVED, 10)
        costs.append(task.cost.operator)
    assert costs[0] == costs[1] == 3 * 10


def test_a_failed_chain_is_not_finite_and_leaves_the_others_alone():
    task, whole = make_task(), make_task()
    operator = task.operator

    def failing(x: torch.Tensor) -> torch.Tensor:
        bad = torch.arange(len(x)) == 1 if len(x) == 4 else torch.zeros(len(x), dtype=torch.bool)
        return operator(x) + torch.where(bad, torch.nan, 0.0)[:, None, None]

    finals = []
    for made, solve in ((task, failing), (whole, whole.operator)):
        leading = LeadingModes(made, 10)
        made.operator = solve
        step = GaussNewtonStep(made, MatrixFreeUpdate(made, leading, 0.1), AverageSpectrum(made))
        finals.append(step(torch.zeros(4, SIZE, SIZE), torch.zeros(4, 1, SIZE, SIZE), 1.0, 0.0))
    assert not bool(finals[0][1].isfinite().any())
    keep = [0, 2, 3]
    assert torch.allclose(finals[0][keep], finals[1][keep], atol=1e-6)


def test_cost_model_takes_products_for_many_observations_of_one_field():
    settings = DDISGNSettings(method="ddis-gn", samples=8)
    assert dense_is_cheaper(settings, 125) and not dense_is_cheaper(settings, 2000)


@pytest.mark.parametrize(("iterations", "tolerance"), [(0, 1e9), (3, 0.0)])
def test_a_matrix_free_update_costs_four_evaluations_and_two_per_iteration(monkeypatch, iterations, tolerance):
    """What the cost model takes for a chain and level: value, transposed product's graph, one product, c pairs, the last pull."""
    monkeypatch.setattr("ddis.sampling.matrix_free.MOST_ITERATIONS", iterations or 1)
    task = make_task()
    step = GaussNewtonStep(task, MatrixFreeUpdate(task, LeadingModes(task, 4), tolerance), AverageSpectrum(task))
    before = task.cost.operator
    x = torch.zeros(len(task.generators), SIZE, SIZE)
    step(x, x[:, None], 1.0, 0.0)
    assert task.cost.operator - before == (4 + 2 * iterations) * len(task.generators)


@pytest.mark.parametrize(("pde", "kind"), [("poisson", SharedJacobian), ("navier-stokes", LeadingModes)])
def test_default_solver_is_dense_for_linear_problems_only(pde, kind):
    assert isinstance(method_of("ddis-gn", samples=2).prepare(make_task(pde)), kind)
