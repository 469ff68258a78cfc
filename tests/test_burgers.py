"""Burgers: the Cole-Hopf solution, order of convergence, conservation, gradients, batches, bad input."""

import numpy as np
import pytest
import torch

from ddis.errors import InputError
from ddis.pde import make_problem


@pytest.fixture(scope="module")
def problem():
    return make_problem("burgers", {})


def cole_hopf(x: np.ndarray, t: float, viscosity: float, modes: list[tuple[int, float, float]]) -> np.ndarray:
    """u(x, t) for u(x, 0) = Σ A cos 2πkx + B sin 2πkx, by quadrature over the line.

    u = ∫ (x - y)/t w dy / ∫ w dy with w = exp(-(U(y) + (x - y)²/2t) / 2ν) and U' = u(·, 0).
    """
    reach = 12 * np.sqrt(2 * viscosity * t) + 1.5
    y = x[:, None] + np.linspace(-reach, reach, 40001)
    kappa = [2 * np.pi * k for k, _, _ in modes]
    potential = sum((a * np.sin(w * y) + b * (1 - np.cos(w * y))) / w for w, (_, a, b) in zip(kappa, modes, strict=True))
    exponent = -(potential + (x[:, None] - y) ** 2 / (2 * t)) / (2 * viscosity)
    weight = np.exp(exponent - exponent.max(axis=1, keepdims=True))
    return ((x[:, None] - y) / t * weight).sum(axis=1) / weight.sum(axis=1)


MODES = [(1, 0.5, 0.3), (2, -0.2, 0.25)]


def initial(size: int) -> torch.Tensor:
    x = np.arange(size) / size
    return torch.from_numpy(sum(a * np.cos(2 * np.pi * k * x) + b * np.sin(2 * np.pi * k * x) for k, a, b in MODES))


def test_second_order_convergence_to_the_cole_hopf_solution(problem):
    """At t = 1/2 and 1, after the fronts have formed."""
    x = np.arange(16) / 16
    exact = np.stack([cole_hopf(x, t, 0.01, MODES) for t in (0.5, 1.0)], axis=1)
    errors = []
    for size in (64, 128, 256):
        u = problem.solve(initial(size)).numpy()
        found = u[:: size // 16][:, [size // 2, size]]
        errors.append(np.linalg.norm(found - exact) / np.linalg.norm(exact))
    orders = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    assert np.all(abs(orders - 2) < 0.15) and errors[1] < 0.005, (errors, orders)


def test_the_mean_is_conserved_and_the_energy_falls(problem):
    a = problem.sample_coefficients(range(4), 32, seed=1) + 0.3
    u = problem.solve(a)
    assert torch.equal(u[..., 0], a) and u.shape == (4, 32, 33)
    assert (u.mean(dim=1) - a.mean(dim=1, keepdim=True)).abs().max() < 1e-13
    assert (u.square().sum(dim=1).diff(dim=1) < 0).all()


def test_initial_conditions_have_the_benchmarks_spectrum(problem):
    """Amplitudes of cos 2πkx over 4,000 fields: variance 2 · 625 (4π²k² + 25)^-2, with a standard error of 2.2 %."""
    a = problem.sample_coefficients(range(4000), 32, seed=0)
    for k in (1, 2, 3):
        amplitude = 2 / 32 * (a @ torch.cos(2 * torch.pi * k * torch.arange(32, dtype=torch.float64) / 32))
        assert float(amplitude.var()) == pytest.approx(2 * 625 * (4 * np.pi**2 * k**2 + 25) ** -2, rel=5 * 0.0224)
    assert a.mean(dim=1).abs().max() < 1e-14 and float(a.std()) == pytest.approx(0.59, abs=0.02)


def test_gradients_are_those_of_differences():
    problem = make_problem("burgers", {"time": 0.1})
    a = problem.sample_coefficients([0], 8, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(problem.solve, (a,))
    direction = torch.randn(1, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradgradcheck(lambda x: problem.solve(x)[..., -1] ** 2, (a,), (direction,))


def test_a_solution_does_not_depend_on_its_batch_and_shifts_with_its_field(problem):
    a = problem.sample_coefficients(range(5), 32, seed=5)
    together = problem.solve(a)
    for n in range(5):
        assert torch.equal(problem.solve(a[n]), together[n])
    assert torch.allclose(problem.solve(a.roll(7, -1)), together.roll(7, -2), atol=1e-13)
    assert problem.solve(a.float()).dtype == torch.float32 and problem.residual(a, together).abs().max() == 0


@pytest.mark.parametrize("value", [20.0, float("nan"), float("inf")])
def test_what_is_too_fast_or_not_finite_is_refused(problem, value):
    a = torch.zeros(2, 16)
    a[1, 3] = value
    with pytest.raises(InputError, match="initial condition"):
        problem.solve(a)


@pytest.mark.parametrize("parameters", [{"viscosity": 1e9}, {"time": 1e7}])
def test_what_would_take_endless_steps_is_refused(parameters):
    with pytest.raises(InputError, match=r"on 16 nodes: [\d,]+ time steps; accepted: up to 1,000,000, so less of one of them"):
        make_problem("burgers", parameters).solve(torch.zeros(2, 16))
