"""Poisson: eigenfunctions, order of convergence, symmetries, an independent solver, gradients, batches, bad input."""

import numpy as np
import pytest
import torch
from nodes import unit_square
from scipy import sparse
from scipy.sparse.linalg import spsolve

from ddis.errors import InputError
from ddis.pde import make_problem
from ddis.pde.dirichlet import laplacian, solve_dirichlet

EPS = np.finfo(float).eps


@pytest.fixture(scope="module")
def problem():
    return make_problem("poisson", {})


def eigenvalue(size: int, m: int, n: int) -> float:
    """Of the 5-point Laplacian, for sin(π m x) sin(π n y)."""
    return -4 * (size - 1) ** 2 * sum(np.sin(np.pi * k / (2 * (size - 1))) ** 2 for k in (m, n))


@pytest.mark.parametrize("size", [8, 33, 128])
def test_eigenfunctions_of_the_discrete_laplacian(problem, size):
    x, y = unit_square(size)
    for m, n in [(1, 1), (2, 5), (size - 2, 3), (size - 2, size - 2)]:
        u = torch.sin(torch.pi * m * x) * torch.sin(torch.pi * n * y)
        value = eigenvalue(size, m, n)
        assert (laplacian(u) - value * u[1:-1, 1:-1]).abs().max() < 1e-12 * 8 * size**2
        assert (problem.solve(value * u) - u).abs().max() < 2 * EPS * size**2


def test_second_order_convergence_to_a_manufactured_solution(problem):
    errors = []
    for size in (17, 33, 65, 129):
        x, y = unit_square(size)
        u = x.exp() * torch.sin(torch.pi * x) * torch.sin(2 * torch.pi * y)
        u_xx = (
            x.exp()
            * ((1 - torch.pi**2) * torch.sin(torch.pi * x) + 2 * torch.pi * torch.cos(torch.pi * x))
            * torch.sin(2 * torch.pi * y)
        )
        errors.append(float((problem.solve(u_xx - 4 * torch.pi**2 * u) - u).abs().max()))
    orders = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    assert np.all(abs(orders - 2) < 0.05), orders


@pytest.mark.parametrize("size", [16, 128])
def test_residual_is_at_round_off(problem, size):
    a = problem.sample_coefficients(range(4), size, seed=1)
    u = problem.solve(a)
    assert (u[:, [0, -1]] == 0).all() and (u[:, :, [0, -1]] == 0).all()
    assert problem.residual(a, u).abs().max() < 50 * EPS * 8 * size**2 * u.abs().max()


def test_symmetries(problem):
    a = problem.sample_coefficients(range(3), 32, seed=2)
    u = problem.solve(a)
    for same in (lambda f: f.mT, lambda f: f.flip(-1), lambda f: f.flip(-2)):
        assert torch.allclose(problem.solve(same(a)), same(u), rtol=0, atol=1e-15)


def test_greens_function_is_symmetric_and_negative(problem):
    units = torch.eye(14 * 14, dtype=torch.float64).reshape(-1, 14, 14)
    green = problem.solve(units).reshape(14 * 14, 14 * 14)
    assert torch.allclose(green, green.T, rtol=0, atol=1e-16)
    inner = torch.nn.functional.pad(torch.ones(12, 12), (1, 1, 1, 1)).flatten() > 0
    assert (green[inner][:, inner] < 0).all() and (green[~inner] == 0).all()


@pytest.mark.parametrize("size", [5, 12, 33])
def test_agrees_with_a_sparse_direct_solver(problem, size):
    a = problem.sample_coefficients([3], size, seed=1)[0]
    second = sparse.diags([1.0, -2.0, 1.0], [-1, 0, 1], shape=(size - 2, size - 2)) * (size - 1) ** 2
    eye = sparse.identity(size - 2)
    matrix = (sparse.kron(second, eye) + sparse.kron(eye, second)).tocsc()
    expected = spsolve(matrix, a[1:-1, 1:-1].numpy().ravel()).reshape(size - 2, size - 2)
    assert np.abs(problem.solve(a)[1:-1, 1:-1].numpy() - expected).max() < 1e-12 * np.abs(expected).max()


def test_gradients_of_first_and_second_order():
    source = torch.randn(1, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(solve_dirichlet, (source, 3.0))
    assert torch.autograd.gradgradcheck(lambda a: solve_dirichlet(a, 3.0) ** 2, (source,))


@pytest.mark.parametrize("size", [9, 64, 65, 128])
def test_a_solution_does_not_depend_on_its_batch(problem, size):
    a = problem.sample_coefficients(range(7), size, seed=5)
    together = problem.solve(a)
    for n in range(7):
        assert torch.equal(problem.solve(a[n]), together[n])
    assert torch.equal(problem.solve(a[:6].reshape(2, 3, size, size)), together[:6].reshape(2, 3, size, size))
    assert problem.solve(a[:0]).shape == (0, size, size)


def test_single_precision_in_and_out_with_double_precision_inside(problem):
    a = problem.sample_coefficients([0], 64, seed=5).float()
    u = problem.solve(a)
    assert u.dtype == torch.float32
    assert torch.equal(u, problem.solve(a.double()).float())


def test_boundary_nodes_of_the_source_are_not_used(problem):
    a = problem.sample_coefficients([0], 16, seed=5)
    other = a.clone()
    other[:, 0] = 7.0
    assert torch.equal(problem.solve(a), problem.solve(other))


@pytest.mark.parametrize(
    ("parameters", "named"), [({"alpha": 1.0}, "alpha"), ({"tau": 0.0}, "tau"), ({"k": 1.0}, "k"), ({"tau": float("nan")}, "tau")]
)
def test_bad_parameters_are_named(parameters, named):
    with pytest.raises(InputError, match=f"parameter '{named}'"):
        make_problem("poisson", parameters)


def test_a_resolution_too_small_for_the_stencil(problem):
    with pytest.raises(InputError, match=r"resolution 3.*at least 4"):
        problem.check(3)
    problem.check(4)
