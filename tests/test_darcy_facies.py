"""Channel sands in shale: what is drawn against closed forms, conservation, the residual, chains. Seeds are stated where used."""

import numpy as np
import pytest
import torch
from nodes import unit_square
from scipy.special import kv

from ddis.errors import InputError
from ddis.grid import square
from ddis.observe.base import Functionals
from ddis.observe.nodes import draw_nodes
from ddis.pde import make_problem
from ddis.pde.darcy import face_means
from ddis.pde.darcy_facies import displaced
from ddis.randomness import generator
from ddis.references.chains import Budget, Chains
from ddis.references.latent import Latent

PROBLEM = make_problem("darcy-facies", {})
FLAT = {"amplitude": 0.0}


def latent(problem, count: int, size: int) -> torch.Tensor:
    """Latent fields [N, 4, S, S], seed 1."""
    spectrum = problem.latent_spectrum(size)
    rng = torch.Generator().manual_seed(1)
    white = torch.randn(count, *spectrum.shape, generator=rng, dtype=torch.float64)
    return problem.coefficient_space(size).grid.basis.inverse(spectrum.sqrt() * white)


def sand(problem, fields: torch.Tensor) -> torch.Tensor:
    """Where sand is, seen from a: without fields inside the facies there are two values."""
    plain = fields.clone()
    plain[:, 2:] = 0
    return (problem.from_latent(plain) == problem.parameters.sand).double()


@pytest.mark.parametrize("proportion", [0.3, 0.6])
def test_every_node_is_sand_with_the_given_probability(proportion):
    """Not displaced; 4,000 fields: standard error 0.008 at a node, five of them, and of the mean over all nodes far less."""
    problem = make_problem("darcy-facies", {**FLAT, "proportion": proportion})
    share = sand(problem, latent(problem, 4000, 16)).mean(dim=0)
    assert (share - proportion).abs().max() < 5 * 0.008
    assert abs(float(share.mean()) - proportion) < 0.006


def test_displaced_bodies_keep_their_share():
    """Between nodes a bilinear field has less variance, by up to a seventh here, which takes up to 0.02 off the share of 0.3."""
    share = float(sand(PROBLEM, latent(PROBLEM, 1000, 32)).mean())
    assert 0.27 < share < 0.305


def test_correlation_lengths_are_those_of_the_parameters():
    """Matérn, ν = 2: ρ = (d/ℓ)² K₂(d/ℓ) / 2, less a mean of share 8π ℓ_x ℓ_y; 600 fields, in the middle half: within 0.02."""
    problem = make_problem("darcy-facies", {**FLAT, "length": 0.08, "width": 0.04})
    z, missing = problem.geometry(latent(problem, 600, 48)), 8 * np.pi * 0.08 * 0.04
    for axis, length in ((1, 0.08), (2, 0.04)):
        for lag in (1, 2, 4, 8):
            own, other = (z.narrow(axis, start, 24).narrow(3 - axis, 12, 24) for start in (12, 12 - lag))
            d = lag / 48 / length
            expected = (d**2 * kv(2, d) / 2 - missing) / (1 - missing)
            assert float((own * other).mean()) == pytest.approx(expected, abs=0.02), (axis, lag)


def test_a_displacement_moves_values_along_y_and_mirrors_beyond_the_boundary():
    x, y = unit_square(6)
    field = (3 * x + y)[None]
    moved = displaced(field, torch.full_like(field, 0.1))
    assert torch.allclose(moved[0], 3 * x + torch.where(y + 0.1 > 1, 2 - (y + 0.1), y + 0.1))
    assert torch.allclose(displaced(field, torch.zeros_like(field)), field)


def test_each_facies_has_its_own_log_normal_permeability():
    """Medians and standard deviations of log a in sand and in shale, over 400 fields whose geometry is the same at 16 nodes."""
    fields = latent(PROBLEM, 400, 16)
    fields[:, :2] = fields[:1, :2]
    is_sand, log_a = sand(PROBLEM, fields[:1])[0].bool(), PROBLEM.from_latent(fields).log()
    spread = PROBLEM.coefficient_space(16).grid.basis.variance(PROBLEM.latent_spectrum(16)[2]).sqrt()
    for where, median in ((is_sand, 10.0), (~is_sand, 1.0)):
        assert 10 < int(where.sum()) < 246
        centred = (log_a[:, where] - np.log(median)) / spread[where]
        assert centred.mean(dim=0).abs().max() < 5 / 400**0.5
        assert (centred.std(dim=0) - 1).abs().max() < 5 / 800**0.5


def test_what_flows_out_is_what_is_put_in_and_the_residual_vanishes():
    a = PROBLEM.sample_coefficients(range(3), 32, seed=3)
    u, (faces_x, faces_y) = PROBLEM.solve(a), face_means(a)
    flux_x, flux_y = faces_x * u[..., 1:-1].diff(dim=-2), faces_y * u[..., 1:-1, :].diff(dim=-1)
    outflow = flux_x[:, 0].sum(dim=1) - flux_x[:, -1].sum(dim=1) + flux_y[..., 0].sum(dim=1) - flux_y[..., -1].sum(dim=1)
    # 30² cells with a source of 1 / 31²; the solver stops at 1e-10
    assert (outflow - 30**2 / 31**2).abs().max() < 1e-7
    assert PROBLEM.residual(a, u).norm() < 1e-7 * PROBLEM.residual(a, torch.zeros_like(u)).norm()


def test_fields_depend_on_seed_and_index_alone_and_are_admissible():
    a = PROBLEM.sample_coefficients(range(4), 16, seed=3)
    assert torch.equal(PROBLEM.sample_coefficients([2], 16, seed=3)[0], a[2])
    assert (a > 0).all() and torch.allclose(PROBLEM.constrain(PROBLEM.relax(a)), a)
    assert not PROBLEM.is_gaussian and not PROBLEM.has_closed_form and not PROBLEM.two_valued


@pytest.mark.parametrize(
    ("parameters", "named"),
    [({"proportion": 1.0}, "'proportion'"), ({"width": 0}, "'width'"), ({"levee": 1}, "'levee': unknown")],
)
def test_bad_parameters_are_named(parameters, named):
    with pytest.raises(InputError, match=named):
        make_problem("darcy-facies", parameters)


def test_chains_draw_all_four_fields_and_their_draws_explain_the_data():
    """12 x 12 nodes, 30 observations, noise of half the solution's spread: Φ is about m / 2, and both facies are drawn."""
    problem, size, seed = make_problem("darcy-facies", {"width": 0.1}, 12), 12, 3
    u = problem.solve(problem.sample_coefficients(range(9), size, seed)).flatten(1)
    noise, index = 0.5 * float(u.std()), torch.from_numpy(draw_nodes(square(size), 30, seed, 0))[None]
    values = u[:1, index[0]] + noise * torch.from_numpy(generator(seed, "noise").standard_normal((1, 30)))
    functionals = Functionals(torch.arange(size**2)[:, None], None, size**2)
    latent_posterior = Latent(problem, functionals, index, values, torch.full((1, 30), noise**2, dtype=torch.float64))
    run = Chains(latent_posterior, Budget(samples=32, chains=16, burn_in=150, steps=100), seed, [0]).run()
    [found] = [reference for _, ended in run for _, reference in ended]
    assert found.draws.shape == (32, size, size) and found.mean.shape == (size, size)
    misfit = (problem.solve(found.draws).flatten(1)[:, index[0]] - values).square().sum(dim=1) / (2 * noise**2)
    assert float(misfit.mean()) == pytest.approx(15, abs=5)  # 15 ± 4 for one draw of a chi-square, 32 correlated draws
    assert found.draws.min() < 2 and found.draws.max() > 6
