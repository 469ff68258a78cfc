"""Navier-Stokes: closed forms, invariants, orders of convergence, accuracy, the random field, gradients, bad inputs."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from ddis.errors import InputError
from ddis.fields.bases import basis, interpolation_matrix
from ddis.fields.gaussian import periodic_spectrum, sample_periodic
from ddis.pde import make_problem
from ddis.pde.navier_stokes import (
    STABLE_COURANT,
    NavierStokes,
    Stepper,
    allowed_steps,
    benchmark_forcing,
    chunk_size,
    difference,
    jacobian,
    laplacian_symbol,
    maximum_speed,
    stream_function,
)


def problem(**parameters: float) -> NavierStokes:
    made = make_problem("navier-stokes", parameters)
    assert isinstance(made, NavierStokes)
    return made


def grid(size: int) -> tuple[Tensor, Tensor]:
    x = 2 * torch.pi * torch.arange(size, dtype=torch.float64) / size
    return x[:, None], x[None, :]


def relative(u: Tensor, exact: Tensor) -> Tensor:
    """Relative l2 error of each field [N, S, S]."""
    return (u - exact).flatten(1).norm(dim=1) / exact.flatten(1).norm(dim=1)


def refined(w: Tensor, factor: int) -> Tensor:
    matrix = torch.from_numpy(interpolation_matrix(w.shape[-1], factor * w.shape[-1]))
    return matrix @ w @ matrix.T


def pseudo_spectral(w: Tensor, steps: int, viscosity: float = 1e-3, time: float = 1.0, forcing: float = 0.1) -> Tensor:
    """An independent solver: exact derivatives in Fourier space, velocity form v·∇w, 2/3 dealiasing, Runge-Kutta 4."""
    size = w.shape[-1]
    frequency = torch.fft.fftfreq(size, 1 / size, dtype=torch.float64)
    kx, ky = 2j * torch.pi * frequency[:, None], 2j * torch.pi * frequency[None, : size // 2 + 1]
    squared = (kx**2 + ky**2).real
    inverse = torch.where(squared == 0, 0.0, 1 / squared)
    resolved = (frequency.abs()[:, None] < size / 3) & (frequency.abs()[None, : size // 2 + 1] < size / 3)
    f_hat, decay = torch.fft.rfft2(benchmark_forcing(size, forcing)), torch.exp(viscosity * time / steps / 2 * squared)

    def rate(w_hat: Tensor) -> Tensor:
        v_x, v_y, w_x, w_y = torch.fft.irfft2(
            torch.stack([-ky * inverse * w_hat, kx * inverse * w_hat, kx * w_hat, ky * w_hat]), s=(size, size)
        )
        return time / steps * (f_hat - resolved * torch.fft.rfft2(v_x * w_x + v_y * w_y))

    w_hat = torch.fft.rfft2(w)
    for _ in range(steps):
        a = rate(w_hat)
        b = rate(decay * (w_hat + a / 2))
        c = rate(decay * w_hat + b / 2)
        d = rate(decay**2 * w_hat + decay * c)
        w_hat = decay**2 * (w_hat + a / 6) + decay * (b + c) / 3 + d / 6
    return torch.fft.irfft2(w_hat, s=(size, size))


@pytest.mark.parametrize("size", [16, 33, 64])
def test_taylor_green_vortices_decay_as_they_must(size: int) -> None:
    x, y = grid(size)
    w = (torch.sin(x) * torch.sin(y))[None]
    viscosity, time = 0.01, 2.0
    u = problem(viscosity=viscosity, time=time, forcing=0.0).solve(w)
    discrete = viscosity * time * laplacian_symbol(size, torch.device("cpu"))[1, 1]
    assert torch.allclose(u, w * torch.exp(discrete), rtol=0, atol=1e-13)
    # The second difference is off by (2π h)⁴ / 90, relatively.
    assert abs(u.norm() / w.norm() / math.exp(-8 * math.pi**2 * viscosity * time) - 1) < 2 * (2 * math.pi / size) ** 4 / 90


def test_a_plane_wave_does_not_advect_itself() -> None:
    x, _ = grid(32)
    w = (torch.sin(3 * x) + 0.5 * torch.cos(x)).expand(32, 32)[None].contiguous()
    assert torch.allclose(problem(forcing=0.0, viscosity=0.0, time=3.0).solve(w), w, atol=1e-13)


def test_forced_flow_at_rest_follows_the_stokes_solution() -> None:
    """The forcing is one mode of |k|² = 2 and does not advect itself: w = f (1 - exp(-8π² ν t)) / (8π² ν)."""
    for viscosity in (1e-3, 0.1, 1.0):
        u = problem(viscosity=viscosity, time=1.0).solve(torch.zeros(1, 64, 64, dtype=torch.float64))
        rate = 8 * math.pi**2 * viscosity
        exact = benchmark_forcing(64, 0.1)[None] * (1 - math.exp(-rate)) / rate
        assert relative(u, exact) < 1e-4


@pytest.mark.parametrize("size", [16, 31, 64])
def test_semi_discrete_invariants(size: int) -> None:
    generator = torch.Generator().manual_seed(size)
    w = torch.randn(3, size, size, dtype=torch.float64, generator=generator)
    for psi in (stream_function(w), torch.randn(3, size, size, dtype=torch.float64, generator=generator)):
        j = jacobian(psi, w)
        for other in (psi, w, torch.ones_like(w)):
            assert ((other * j).sum((1, 2)).abs() <= 1e-12 * (other * j).abs().sum((1, 2))).all()
        assert torch.allclose(jacobian(w, psi), -j, rtol=0, atol=1e-13 * j.abs().max().item())


def test_inviscid_energy_and_enstrophy_drift_with_the_time_step_alone() -> None:
    """A drift of high order in dt: what is left of it comes from Runge-Kutta, none from space."""
    w = sample_periodic(range(2), 32, 0)
    drift = []
    for steps in (8, 16):
        u = Stepper(torch.zeros(32, 32, dtype=torch.float64), 0.0, 4.0 / steps).advance(w, steps)[0]
        energy = [(field * stream_function(field)).sum((1, 2)) for field in (w, u)]
        enstrophy = [(field**2).sum((1, 2)) for field in (w, u)]
        drift.append(max((abs(b / a - 1)).max().item() for a, b in (energy, enstrophy)))
    assert drift[0] < 1e-3 and drift[0] / drift[1] > 2**3.5


def test_the_stream_function_solves_the_discrete_poisson_equation() -> None:
    w = torch.randn(2, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    psi = stream_function(w)
    laplacian = torch.zeros_like(w)
    for dim in (1, 2):
        for offset, weight in ((0, -30), (1, 16), (-1, 16), (2, -1), (-2, -1)):
            laplacian += weight * torch.roll(psi, offset, dim) * 32**2 / 12
    assert torch.allclose(laplacian, w - w.mean((1, 2), keepdim=True), atol=1e-12)
    assert psi.mean().abs() < 1e-15


def test_stencil_by_index() -> None:
    spike = torch.zeros(1, 8, 8, dtype=torch.float64)
    spike[0, 3, 5] = 1.0
    expected = {1: 1.0, 2: -8.0, 4: 8.0, 5: -1.0}
    assert {i: v for i, v in enumerate(difference(spike, -2)[0, :, 5].tolist()) if v} == expected
    assert {j - 2: v for j, v in enumerate(difference(spike, -1)[0, 3].tolist()) if v} == expected


def test_fourth_order_in_space() -> None:
    """Smooth two-mode vorticity against the pseudo-spectral solver, which is exact to round-off there."""
    errors = []
    for size in (32, 64, 128):
        x, y = grid(size)
        w = (torch.sin(x) * torch.cos(2 * y) + torch.cos(x + y) + 0.5 * torch.sin(3 * y - x))[None]
        errors.append(relative(problem(step=1 / 64).solve(w), pseudo_spectral(w, 64)).item())
    orders = [math.log2(a / b) for a, b in pairwise(errors)]
    assert all(3.7 < order < 4.3 for order in orders), (errors, orders)


def test_fourth_order_in_time() -> None:
    w = refined(sample_periodic(range(2), 16, 3), 2)
    stepper = [Stepper(benchmark_forcing(32, 0.1), 1e-3, 2.0 / n) for n in (4, 8, 16, 128)]
    *coarse, reference = (s.advance(w, n)[0] for s, n in zip(stepper, (4, 8, 16, 128), strict=True))
    errors = [relative(u, reference).max().item() for u in coarse]
    orders = [math.log2(a / b) for a, b in pairwise(errors)]
    assert all(3.6 < order < 4.6 for order in orders), (errors, orders)


@pytest.mark.parametrize(("size", "count", "bound"), [(64, 8, 5e-4), (128, 2, 5e-5)])
def test_error_on_benchmark_fields_against_a_finer_run(size: int, count: int, bound: float) -> None:
    """The same band-limited initial fields on twice as many nodes, pseudo-spectral, restricted; the issue asks for 1e-3."""
    p = problem()
    w = p.sample_coefficients(range(count), size, 0)
    fine = pseudo_spectral(refined(w, 2), 40)
    error = relative(p.solve(w), fine[:, ::2, ::2])
    assert error.max() < bound <= 1e-3


def test_refinement_gains_accuracy() -> None:
    w = sample_periodic(range(2), 32, 0)
    fine = pseudo_spectral(refined(w, 4), 40)[:, ::4, ::4]
    coarse, finer = (relative(problem(refinement=r).solve(w), fine).max() for r in (1, 2))
    assert finer < coarse / 5


def test_interpolation_reproduces_the_nodes() -> None:
    for size in (8, 9):
        w = torch.randn(1, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        assert torch.allclose(refined(w, 3)[:, ::3, ::3], w, atol=1e-13)


def test_mean_vorticity_is_conserved() -> None:
    w = sample_periodic(range(3), 32, 0) + 0.7
    assert torch.allclose(problem(viscosity=1e-4).solve(w).mean((1, 2)), w.mean((1, 2)), atol=1e-14)


def test_symmetries() -> None:
    """Without forcing shifts, quarter turns and (with a change of sign) reflections; with it, shifts along its crests."""
    free, forced = problem(forcing=0.0), problem()
    w = sample_periodic(range(2), 32, 1)

    def turned(f: Tensor) -> Tensor:
        return torch.roll(f.mT.flip(-1), 1, -1)

    def mirrored(f: Tensor) -> Tensor:
        return -torch.roll(f.flip(-1), 1, -1)

    def shifted(f: Tensor) -> Tensor:
        return torch.roll(f, (5, 11), (-2, -1))

    def along(f: Tensor) -> Tensor:
        return torch.roll(f, (5, -5), (-2, -1))

    for p, move in ((free, turned), (free, mirrored), (free, shifted), (forced, along)):
        assert torch.allclose(p.solve(move(w)), move(p.solve(w)), rtol=0, atol=1e-13)
    assert relative(forced.solve(shifted(w)), shifted(forced.solve(w))).min() > 0.01
    assert relative(free.solve(w.mT), free.solve(w).mT).min() > 0.01


def test_residual_tells_right_pairs_from_wrong_ones() -> None:
    p = problem()
    a = p.sample_coefficients(range(3), 32, 0)
    u = p.solve(a)
    assert p.residual(a, u).abs().max() == 0
    pairs = [(a, u.mT), (a.mT, u), (a.mT, u.mT), (a, u.roll(1, 0)), (a, a), (a, torch.zeros_like(u))]
    for coefficient, solution in pairs:
        assert (p.residual(coefficient, solution).flatten(1).norm(dim=1) > 0.05 * u.flatten(1).norm(dim=1)).all()


def test_spectrum_of_the_initial_field() -> None:
    """Every mode's variance over 400 fields against the definition, which sums over k and -k."""
    size, count = 16, 400
    w = sample_periodic(range(count), size, 5)
    modes = basis("fourier", size).forward(w)
    ratio = (modes**2).mean(0) / torch.from_numpy(periodic_spectrum(size)).clamp_min(1e-300)
    assert modes[:, 0, 0].abs().max() < 1e-12
    ratio[0, 0] = 1.0
    # chi-squared with 400 degrees of freedom: standard deviation 0.0707, 255 modes
    assert (ratio - 1).abs().max() < 4.5 * math.sqrt(2 / count)
    assert (ratio - 1).std() == pytest.approx(math.sqrt(2 / count), rel=0.15)
    k, sigma = (3.0, 2.0), 7.0**1.5
    direct = 2 * sigma**2 * (4 * math.pi**2 * (k[0] ** 2 + k[1] ** 2) + 49) ** -2.5
    assert periodic_spectrum(size)[6, 3] / size**2 == pytest.approx(direct)


def test_pointwise_deviation_of_a_thousand_fields() -> None:
    p = problem()
    closed = basis("fourier", 128).variance(p.prior_spectrum(128))
    assert torch.allclose(closed, closed.mean(), rtol=1e-10)
    assert closed.mean().sqrt().item() == pytest.approx(0.26211, rel=0.05)
    squares = torch.cat([(p.sample_coefficients(range(i, i + 100), 128, 0) ** 2).mean((1, 2)) for i in range(0, 1000, 100)])
    error = squares.std() / math.sqrt(len(squares))
    assert abs(squares.mean() - closed.mean()) < 3 * error
    assert squares.mean().sqrt().item() == pytest.approx(0.26211, rel=0.05)


def test_deviation_of_the_solution() -> None:
    """300 fields at 32 nodes: the large scales that carry the variance are resolved there, and 128 nodes take half a minute."""
    p = problem()
    u = p.solve(p.sample_coefficients(range(300), 32, 0))
    mean_square = (u**2).mean((1, 2))
    error = mean_square.std() / math.sqrt(len(u)) / (2 * mean_square.mean().sqrt())
    assert abs(mean_square.mean().sqrt() - 0.25613) < max(3 * error.item(), 0.05 * 0.25613)
    assert error < 0.03 * 0.25613


def test_fields_depend_on_seed_and_index_alone_and_agree_between_resolutions() -> None:
    together = sample_periodic([4, 9, 2], 32, 7)
    assert torch.equal(together[1:2], sample_periodic([9], 32, 7))
    assert not torch.allclose(together, sample_periodic([4, 9, 2], 32, 8))
    coarse, fine = (basis("fourier", s).forward(sample_periodic([4], s, 7)) / s for s in (16, 32))
    assert torch.allclose(coarse[:, :-1, :-1], fine[:, :15, :15], atol=1e-12)


def test_gradient_against_differences() -> None:
    p = problem(time=0.5)
    a = sample_periodic(range(2), 16, 0).requires_grad_()
    weight = torch.randn(2, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad((weight * p.solve(a)).sum(), a)
    for seed in range(3):
        direction = torch.randn(2, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(10 + seed))
        ends = [(weight * p.solve(a.detach() + t * direction)).sum() for t in (1e-4, -1e-4)]
        assert ((ends[0] - ends[1]) / 2e-4).item() == pytest.approx((gradient * direction).sum().item(), rel=1e-6)


def test_gradients_do_not_mix_fields_and_reach_refined_grids() -> None:
    p = problem(refinement=2)
    a = sample_periodic(range(3), 16, 0).requires_grad_()
    (gradient,) = torch.autograd.grad(p.solve(a)[1].square().sum(), a)
    assert gradient[1].norm() > 0 and gradient[0].norm() == gradient[2].norm() == 0


@pytest.mark.parametrize(("size", "refinement"), [(15, 1), (16, 1), (32, 1), (64, 1), (16, 2)])
def test_a_field_has_the_same_bits_in_every_batch(size: int, refinement: int) -> None:
    p = problem(refinement=refinement)
    w = p.sample_coefficients(range(9), size, 0)
    w = w * torch.linspace(0.2, 6, 9, dtype=torch.float64)[:, None, None]
    whole = p.solve(w)
    assert len(set(p.steps(w))) > 2
    for chosen in ([0], [8], [3, 4], [8, 0, 5], [1, 2, 3, 4, 5, 6, 7]):
        assert torch.equal(p.solve(w[chosen]), whole[chosen])
    assert torch.equal(p.solve(w[2]), whole[2])


def test_the_step_follows_the_velocity_and_keeps_within_the_stable_range() -> None:
    p = problem(viscosity=0.0, forcing=0.0)
    w = sample_periodic(range(1), 32, 0)
    steps = [p.steps(w * scale)[0] for scale in (0.0, 1.0, 4.0, 16.0)]
    assert steps[0] == 1 and steps == sorted(steps) and steps[3] > 8 * steps[1] / 1.5
    fast = 16.0 * w
    u, speed = Stepper(torch.zeros(32, 32, dtype=torch.float64), 0.0, 1 / steps[3]).advance(fast, steps[3])
    assert speed * 32 / steps[3] < STABLE_COURANT and (speed >= maximum_speed(fast)).all()
    assert abs(u.norm() / fast.norm() - 1) < 0.02


def test_a_field_that_outgrows_its_step_is_marched_again_with_smaller_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    p = problem()
    w = sample_periodic(range(2), 32, 0) * 4
    right = p.solve(w)
    monkeypatch.setattr(type(p), "steps", lambda self, w: [1, 2])
    assert relative(p.solve(w), right).max() < 1e-3


def test_allowed_steps() -> None:
    assert [allowed_steps(x) for x in (0.0, 1.0, 1.1, 2.5, 3.5, 4.5, 6.1, 9.0, 12.5)] == [1, 1, 2, 3, 4, 6, 8, 12, 16]


def test_chunks_hold_two_fields_at_least() -> None:
    assert chunk_size(1024, torch.device("cpu")) >= 2


def test_bad_inputs() -> None:
    w = sample_periodic(range(2), 32, 0)
    with pytest.raises(InputError, match=r"step 1: unstable.*accepted: up to 0\.\d+"):
        problem(step=1.0).solve(20 * w)
    with pytest.raises(InputError, match="resolution 7"):
        problem().solve(w[:, :7, :7])
    for key, value in {"viscosity": -1e-3, "time": 0.0, "step": 0.0, "refinement": 0, "alpha": 1.0, "nu": 1e-3}.items():
        with pytest.raises(InputError, match=key):
            problem(**{key: value})


def test_a_field_that_cannot_be_solved_is_nan_and_leaves_the_others_alone() -> None:
    w = sample_periodic(range(3), 16, 0)
    broken = w.clone()
    broken[0, 3, 3] = math.nan
    broken[2] *= 1e9
    u = problem().solve(broken)
    assert u[0].isnan().all() and u[2].isnan().all()
    assert torch.equal(u[1], problem().solve(w)[1])


def test_precision_and_shape_follow_the_input() -> None:
    w = sample_periodic(range(4), 16, 0)
    single = problem().solve(w.float().reshape(2, 2, 16, 16))
    assert single.dtype == torch.float32 and single.shape == (2, 2, 16, 16)
    assert torch.allclose(single.double().reshape(4, 16, 16), problem().solve(w), atol=1e-6)
