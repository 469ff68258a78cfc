"""Helmholtz: eigenfunctions, order of convergence, resonances, the constrained coefficient, and what it shares with Poisson."""

import re

import numpy as np
import pytest
import torch
from nodes import unit_square
from scipy import sparse
from scipy.sparse.linalg import spsolve

from ddis.errors import InputError
from ddis.fields.bases import basis
from ddis.grid import square
from ddis.observe.nodes import draw_nodes
from ddis.pde import make_problem

EPS = np.finfo(float).eps


@pytest.mark.parametrize("k", [0.5, 1.0, 7.0])
def test_eigenfunctions_of_the_discrete_operator(k):
    problem, size = make_problem("helmholtz", {"k": k}), 24
    x, y = unit_square(size)
    for m, n in [(1, 1), (3, 2), (22, 22)]:
        u = torch.sin(torch.pi * m * x) * torch.sin(torch.pi * n * y)
        value = k**2 - 4 * (size - 1) ** 2 * sum(np.sin(np.pi * j / (2 * (size - 1))) ** 2 for j in (m, n))
        assert (problem.solve(value * u) - u).abs().max() < 1e-12


@pytest.mark.parametrize("k", [1.0, 6.0])
def test_second_order_convergence_to_a_manufactured_solution(k):
    problem, errors = make_problem("helmholtz", {"k": k}), []
    for size in (33, 65, 129):
        x, y = unit_square(size)
        u = x * (1 - x) * torch.sin(torch.pi * y) * y.exp()
        u_xx = -2 * torch.sin(torch.pi * y) * y.exp() * torch.ones_like(x)
        u_yy = x * (1 - x) * y.exp() * ((1 - torch.pi**2) * torch.sin(torch.pi * y) + 2 * torch.pi * torch.cos(torch.pi * y))
        errors.append(float((problem.solve(u_xx + u_yy + k**2 * u) - u).abs().max()))
    orders = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    assert np.all(abs(orders - 2) < 0.05), orders


def test_residual_is_at_round_off():
    problem = make_problem("helmholtz", {"k": 3.0})
    a = problem.sample_coefficients(range(4), 128, seed=1)
    u = problem.solve(a)
    assert problem.residual(a, u).abs().max() < 50 * EPS * 8 * 128**2 * u.abs().max()


def test_symmetries_and_symmetric_greens_function():
    problem = make_problem("helmholtz", {"k": 6.0})
    a = problem.sample_coefficients(range(3), 32, seed=2)
    u = problem.solve(a)
    for same in (lambda f: f.mT, lambda f: f.flip(-1), lambda f: f.flip(-2)):
        assert torch.allclose(problem.solve(same(a)), same(u), rtol=0, atol=1e-14)
    units = torch.eye(100, dtype=torch.float64).reshape(-1, 10, 10)
    green = problem.solve(units).reshape(100, 100)
    assert torch.allclose(green, green.T, rtol=0, atol=1e-15)


@pytest.mark.parametrize("k", [1.0, 9.0])
def test_agrees_with_a_sparse_direct_solver(k):
    problem, size = make_problem("helmholtz", {"k": k}), 20
    a = problem.sample_coefficients([3], size, seed=1)[0]
    second = sparse.diags([1.0, -2.0, 1.0], [-1, 0, 1], shape=(size - 2, size - 2)) * (size - 1) ** 2
    eye = sparse.identity(size - 2)
    matrix = (sparse.kron(second, eye) + sparse.kron(eye, second) + k**2 * sparse.identity((size - 2) ** 2)).tocsc()
    expected = spsolve(matrix, a[1:-1, 1:-1].numpy().ravel()).reshape(size - 2, size - 2)
    assert np.abs(problem.solve(a)[1:-1, 1:-1].numpy() - expected).max() < 1e-12 * np.abs(expected).max()


def test_gradient_with_respect_to_the_coefficient():
    problem = make_problem("helmholtz", {"k": 2.0})
    a = problem.sample_coefficients([0, 1], 6, seed=0).requires_grad_()
    assert torch.autograd.gradcheck(problem.solve, (a,))


def test_a_solution_does_not_depend_on_its_batch():
    problem = make_problem("helmholtz", {})
    a = problem.sample_coefficients(range(5), 65, seed=5)
    together = problem.solve(a)
    assert all(torch.equal(problem.solve(a[n]), together[n]) for n in range(5))


def test_without_a_wave_number_it_is_poisson():
    poisson, helmholtz = make_problem("poisson", {}), make_problem("helmholtz", {"k": 0.0})
    a = poisson.sample_coefficients(range(2), 32, seed=4)
    assert torch.equal(poisson.solve(a), helmholtz.solve(a))


def test_the_coefficient_is_the_random_field_inside_and_zero_on_the_boundary():
    poisson, helmholtz = make_problem("poisson", {}), make_problem("helmholtz", {})
    free, a = (problem.sample_coefficients(range(2), 16, seed=4) for problem in (poisson, helmholtz))
    assert torch.equal(a[:, 1:-1, 1:-1], free[:, 1:-1, 1:-1])
    assert (a[:, [0, -1]] == 0).all() and (a[:, :, [0, -1]] == 0).all()
    assert torch.equal(helmholtz.constrain(free), a)
    assert torch.equal(helmholtz.solve(free), helmholtz.solve(a))
    relaxed = helmholtz.relax(a)
    assert torch.equal(helmholtz.constrain(relaxed), a)
    assert torch.equal(relaxed[:, 0, 1:-1], a[:, 1, 1:-1]) and torch.equal(relaxed[:, -1, -1], a[:, -2, -2])


def test_the_diagonal_spectrum_of_relaxed_fields_loses_little_and_that_of_constrained_ones_much():
    """Expected error of the posterior mean of a = P b, and the spread claimed for it, against the exact covariance of b."""
    problem, size, modes = make_problem("helmholtz", {}), 20, basis("cosine", 20)
    units = torch.eye(size * size, dtype=torch.float64).reshape(-1, size, size)
    functions = modes.inverse(units).flatten(1).T
    covariance = functions @ torch.diag(problem.prior_spectrum(size).flatten()) @ functions.T
    project, relax, solve = (f(units).flatten(1).T for f in (problem.constrain, problem.relax, problem.solve))
    observe = solve[torch.from_numpy(draw_nodes(square(size), 40, 0, 0))]
    noise = 1e-6 * (solve @ covariance @ solve.T).diagonal().mean() * torch.eye(40, dtype=torch.float64)

    def figures(assumed: torch.Tensor) -> tuple[float, float]:
        gain = project @ assumed @ observe.T @ torch.linalg.inv(observe @ assumed @ observe.T + noise)
        left = project - gain @ observe
        error = (left @ covariance @ left.T + gain @ noise @ gain.T).trace()
        claimed = (left @ assumed @ project.T).trace()
        return float(error.sqrt()), float(claimed.sqrt())

    def diagonal(seen: torch.Tensor) -> torch.Tensor:
        return functions @ torch.diag((functions.T @ seen @ covariance @ seen.T @ functions).diagonal()) @ functions.T

    exact, relaxed, constrained = figures(covariance), figures(diagonal(relax @ project)), figures(diagonal(project))
    assert exact[0] == pytest.approx(exact[1], rel=1e-6)
    assert relaxed[0] < 1.005 * exact[0] and relaxed[1] > 0.9 * exact[1]
    assert constrained[0] > 1.1 * exact[0] and constrained[1] > 1.5 * exact[1]


@pytest.mark.parametrize(("size", "m", "n"), [(16, 1, 1), (64, 1, 1), (64, 4, 3), (64, 9, 7)])
def test_a_wave_number_near_an_eigenvalue_is_refused_with_the_nearest_that_are_not(size, m, n):
    eigenvalue = 4 * (size - 1) ** 2 * sum(np.sin(np.pi * j / (2 * (size - 1))) ** 2 for j in (m, n))
    for k in np.sqrt(eigenvalue) * np.array([1 - 3e-4, 1.0, 1 + 3e-4]):
        problem = make_problem("helmholtz", {"k": float(k)})
        with pytest.raises(InputError, match=rf"parameter k .* at resolution {size}.*eigenvalue") as caught:
            problem.check(size)
        with pytest.raises(InputError, match="eigenvalue"):
            problem.solve(torch.zeros(size, size))
        accepted = [float(v) for v in re.findall(r"[\d.]+", str(caught.value).rpartition("accepted values:")[2])]
        assert len(accepted) == 2 and accepted[0] < k < accepted[1]
        for value in accepted:
            make_problem("helmholtz", {"k": value}).check(size)


def test_resonance_depends_on_the_resolution():
    problem = make_problem("helmholtz", {"k": float(np.sqrt(2) * np.pi)})
    problem.check(8)
    with pytest.raises(InputError, match="resolution 128"):
        problem.check(128)


def test_bad_parameters():
    with pytest.raises(InputError, match="fewer than 6 nodes per wavelength"):
        make_problem("helmholtz", {"k": 40.0}).check(32)
    with pytest.raises(InputError, match="at least 4"):
        make_problem("helmholtz", {}).check(2)
    for k in (-1.0, float("inf")):
        with pytest.raises(InputError, match="parameter 'k'"):
            make_problem("helmholtz", {"k": k})
