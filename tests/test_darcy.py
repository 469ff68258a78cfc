"""Darcy: order of convergence, conservation, energy, symmetries, an independent solver, gradients, batches, bad input."""

import numpy as np
import pytest
import torch
from nodes import unit_square
from scipy import sparse
from scipy.sparse.linalg import spsolve
from torch.nn.functional import pad

from ddis.errors import InputError
from ddis.pde import make_problem
from ddis.pde.darcy import TOLERANCE, face_means, flux_divergence, solve_flux
from ddis.pde.dirichlet import solve_dirichlet

KINDS = [{}, {"coefficient": "log-normal"}, {"coefficient": "log-normal", "scale": 4.0}]


@pytest.fixture(scope="module", params=KINDS, ids=["two-valued", "log-normal", "log-normal-rough"])
def problem(request):
    return make_problem("darcy", request.param)


@pytest.mark.parametrize("smooth", [True, False])
def test_second_order_convergence_to_a_manufactured_solution(smooth):
    pi, errors = torch.pi, []
    for size in (17, 33, 65, 129):
        x, y = unit_square(size)
        a = torch.exp(torch.sin(pi * x) + x * y)
        u = torch.sin(pi * x) * torch.sin(2 * pi * y)
        u_x, u_y = pi * torch.cos(pi * x) * torch.sin(2 * pi * y), 2 * pi * torch.sin(pi * x) * torch.cos(2 * pi * y)
        source = -a * ((pi * torch.cos(pi * x) + y) * u_x + x * u_y - 5 * pi**2 * u)
        errors.append(float((solve_flux(a, source, smooth) - u).abs().max()))
    orders = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    assert np.all(abs(orders - 2) < 0.05), orders


def test_harmonic_means_are_exact_for_layers():
    """Constant flux through layers: u = ∫ dx / a with every node's value filling its cell."""
    a = torch.tensor([3.0, 3, 12, 12, 1, 1, 1, 50, 2], dtype=torch.float64)
    size = len(a)
    half = 1 / (2 * a * (size - 1))
    u = torch.cat([torch.zeros(1), (half[:-1] + half[1:]).cumsum(0)])[:, None].expand(size, size)
    divergence = flux_divergence(*face_means(a[:, None].expand(size, size)), u)
    assert divergence.abs().max() < 1e-13 * size**2


def test_constant_coefficient_is_poisson(problem):
    for value in (0.02, 5.0):
        a = torch.full((40, 40), value, dtype=torch.float64)
        expected = solve_dirichlet(-torch.ones_like(a)) / value
        assert (problem.solve(a) - expected).abs().max() < 10 * TOLERANCE * expected.max()


def test_scaling_of_the_coefficient(problem):
    a = problem.sample_coefficients(range(2), 24, seed=1)
    assert torch.allclose(problem.solve(1000 * a), problem.solve(a) / 1000, rtol=1e-9, atol=0)


@pytest.mark.parametrize("size", [5, 12, 33])
def test_agrees_with_a_sparse_direct_solver(problem, size):
    a = problem.sample_coefficients([3], size, seed=1)[0]
    expected = spsolve(reference_matrix(a.numpy()), np.ones((size - 2) ** 2)).reshape(size - 2, size - 2)
    assert np.abs(problem.solve(a)[1:-1, 1:-1].numpy() - expected).max() < 10 * TOLERANCE * np.abs(expected).max()


def reference_matrix(a: np.ndarray) -> sparse.csc_matrix:
    """Assembled node by node and face by face."""
    size, entries = a.shape[0], {}
    for i in range(1, size - 1):
        for j in range(1, size - 1):
            row = (i - 1) * (size - 2) + j - 1
            for p, q in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
                face = 2 / (1 / a[i, j] + 1 / a[p, q]) * (size - 1) ** 2
                entries[row, row] = entries.get((row, row), 0.0) + face
                if 0 < p < size - 1 and 0 < q < size - 1:
                    entries[row, (p - 1) * (size - 2) + q - 1] = -face
    rows, columns = np.array(list(entries)).T
    return sparse.csc_matrix((list(entries.values()), (rows, columns)))


def test_the_solution_solves_the_discrete_equation(problem):
    """In the norm of (-Δ)⁻¹ the residual is at the tolerance, but for the scaling of the log-normal preconditioner."""
    a = problem.sample_coefficients(range(3), 64, seed=6)
    u = problem.solve(a)
    residual, source = pad(problem.residual(a, u), (1, 1, 1, 1)), torch.ones_like(a)

    def norm(f):
        return (-(f * solve_dirichlet(f)).sum(dim=(1, 2))).sqrt()

    assert (norm(residual) < 10 * TOLERANCE * norm(source)).all()
    assert (u[:, 1:-1, 1:-1] > 0).all() and (u[:, [0, -1]] == 0).all() and (u[:, :, [0, -1]] == 0).all()


def test_operator_is_symmetric_and_its_energy_is_the_work_of_the_source(problem):
    size = 20
    a = problem.sample_coefficients([0], size, seed=3)
    faces = face_means(a)
    v, w = (pad(torch.randn(1, 18, 18, dtype=torch.float64), (1, 1, 1, 1)) for _ in range(2))
    first, second = ((p[:, 1:-1, 1:-1] * flux_divergence(*faces, q)).sum() for p, q in ((v, w), (w, v)))
    assert abs(first - second) < 1e-13 * abs(faces[0].sum()) * size**2
    u = problem.solve(a)
    energy = (faces[0] * u[..., 1:-1].diff(dim=-2) ** 2).sum() + (faces[1] * u[..., 1:-1, :].diff(dim=-1) ** 2).sum()
    work = u.sum() / (size - 1) ** 2
    assert abs(energy - work) < 1e-9 * work


def test_what_flows_out_is_what_is_put_in(problem):
    a = problem.sample_coefficients([0], 32, seed=3)
    u, (faces_x, faces_y) = problem.solve(a), face_means(a)
    flux_x, flux_y = faces_x * u[..., 1:-1].diff(dim=-2), faces_y * u[..., 1:-1, :].diff(dim=-1)
    outflow = flux_x[:, 0].sum() - flux_x[:, -1].sum() + flux_y[..., 0].sum() - flux_y[..., -1].sum()
    assert abs(outflow - 30**2 / 31**2) < 1e-7


def test_symmetries_and_symmetric_greens_function(problem):
    a = problem.sample_coefficients(range(2), 24, seed=2)
    u = problem.solve(a)
    for same in (lambda f: f.mT, lambda f: f.flip(-1), lambda f: f.flip(-2)):
        assert torch.allclose(problem.solve(same(a)), same(u), rtol=1e-8, atol=0)
    units = torch.eye(81, dtype=torch.float64).reshape(-1, 9, 9)
    green = solve_flux(problem.sample_coefficients([0], 9, seed=2).expand(81, 9, 9), units, smooth=True).reshape(81, 81)
    assert torch.allclose(green, green.T, rtol=0, atol=1e-9 * float(green.max()))


def test_gradients_against_finite_differences(problem):
    a = problem.sample_coefficients([0], 6, seed=4).requires_grad_()
    assert torch.autograd.gradcheck(problem.solve, (a,), eps=1e-4, atol=1e-7)
    pair = problem.sample_coefficients([1, 2], 6, seed=4).requires_grad_()
    source = torch.randn(2, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(solve_flux, (pair, source), eps=1e-4, atol=1e-6, fast_mode=True)


def test_memory_kept_for_the_gradient_is_a_few_fields(problem):
    kept = []
    a = problem.sample_coefficients([0], 32, seed=4).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        problem.solve(a)
    assert sum(kept) < 20 * 32**2


@pytest.mark.parametrize("size", [9, 65, 128])
def test_a_solution_does_not_depend_on_its_batch(problem, size):
    """Bit for bit, also beside fields that need more or fewer iterations."""
    a = problem.sample_coefficients(range(5), size, seed=5)
    a[1] = 1.0
    a[2] = a[2] ** 2
    together = problem.solve(a)
    assert all(torch.equal(problem.solve(a[n]), together[n]) for n in range(5))
    assert problem.solve(a[:0]).shape == (0, size, size)


def test_single_precision_in_and_out(problem):
    a = problem.sample_coefficients([0], 16, seed=5).float()
    u = problem.solve(a)
    assert u.dtype == torch.float32 and torch.equal(u, problem.solve(a.double()).float())


def test_zero_source_and_zero_gradient(problem):
    a = problem.sample_coefficients(range(2), 12, seed=5).requires_grad_()
    assert (solve_flux(a, torch.zeros_like(a)) == 0).all()
    problem.solve(a)[0].sum().backward()
    assert (a.grad[1] == 0).all() and a.grad[0].abs().max() > 0


def test_coefficients_and_their_free_fields(problem):
    a = problem.sample_coefficients(range(20), 32, seed=5)
    assert torch.allclose(problem.constrain(problem.relax(a)), a, rtol=1e-14)
    assert (problem.constrain(torch.linspace(-50, 50, 400, dtype=torch.float64).reshape(20, 20)) > 0).all()
    if problem.two_valued:
        assert set(a.unique().tolist()) == {3.0, 12.0} and problem.prior_spectrum(32) is None
    else:
        variance = problem.relax(a).var()
        assert abs(variance / problem.prior_spectrum(32).mean() - 1) < 0.15
        assert not problem.has_closed_form


@pytest.mark.parametrize("value", [0.0, -1e-3, float("nan"), float("inf")])
def test_coefficients_that_are_not_positive_are_refused(problem, value):
    a = problem.sample_coefficients(range(3), 16, seed=5)
    a[1, 4, 5] = value
    with pytest.raises(InputError, match=r"field 1: .*accepted: positive"):
        problem.solve(a)


def test_a_contrast_beyond_reach_is_refused():
    a = torch.where(torch.rand(40, 40, generator=torch.Generator().manual_seed(0)) < 0.5, 1e-12, 1e12).double()
    with pytest.raises(InputError, match="no convergence"):
        make_problem("darcy", {}).solve(a)


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"low": 12.0, "high": 3.0}, "low 12 must be less than high 3"),
        ({"low": 20.0}, "low 20 must be less than high 12"),
        ({"low": 0.0}, "parameter 'low'"),
        ({"scale": 2.0}, "scale is not used with coefficient: two-valued"),
        ({"coefficient": "log-normal", "low": 2.0}, "low is not used with coefficient: log-normal"),
        ({"coefficient": "three-valued"}, "parameter 'coefficient'"),
        ({"coefficient": "log-normal", "scale": -1.0}, "parameter 'scale'"),
    ],
)
def test_bad_parameters_are_named(parameters, named):
    with pytest.raises(InputError, match=named):
        make_problem("darcy", parameters)


def test_a_resolution_too_small_for_the_stencil(problem):
    with pytest.raises(InputError, match=r"resolution 3.*at least 4"):
        problem.check(3)
