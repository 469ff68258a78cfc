"""Darcy flow with conductivity and source as two channels: manufactured solution, gradients, fields."""

import numpy as np
import torch
from nodes import unit_square

from ddis.pde import make_problem

PROBLEM = make_problem("darcy-source", {})
PI = torch.pi


def test_second_order_convergence_to_a_manufactured_solution():
    errors = []
    for size in (17, 33, 65):
        x, y = unit_square(size)
        k = torch.exp(torch.sin(PI * x) + x * y)
        u = torch.sin(PI * x) * torch.sin(2 * PI * y)
        u_x, u_y = PI * torch.cos(PI * x) * torch.sin(2 * PI * y), 2 * PI * torch.sin(PI * x) * torch.cos(2 * PI * y)
        f = -k * ((PI * torch.cos(PI * x) + y) * u_x + x * u_y - 5 * PI**2 * u)
        errors.append(float((PROBLEM.solve(torch.stack([k, f])) - u).norm() / u.norm()))
    orders = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    assert np.all(abs(orders - 2) < 0.05), orders


def test_fields_their_free_fields_and_their_statistics():
    a = PROBLEM.sample_coefficients(range(400), 16, seed=0)
    free = PROBLEM.relax(a)
    assert a.shape == (400, 2, 16, 16) == (400, *PROBLEM.coefficient_space(16).shape)
    assert torch.allclose(PROBLEM.constrain(free), a) and (a[:, 0] > 0).all()
    expected = PROBLEM.coefficient_space(16).grid.basis.variance(PROBLEM.prior_spectrum(16))
    # 400 fields: the standard error of a variance is 7 %
    assert (free.var(dim=0) / expected - 1).abs().max() < 5 * 0.07
    assert abs(np.corrcoef(free[:, 0, 8, 8], free[:, 1, 8, 8])[0, 1]) < 5 / np.sqrt(400)


def test_the_residual_is_small_and_gradients_go_to_both_channels():
    a = PROBLEM.sample_coefficients(range(2), 16, seed=1)
    u = PROBLEM.solve(a)
    assert PROBLEM.residual(a, u).norm() < 1e-8 * PROBLEM.residual(a, torch.zeros_like(u)).norm()
    small = PROBLEM.sample_coefficients([0], 5, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(PROBLEM.solve, (small,), eps=1e-5, atol=1e-6)
