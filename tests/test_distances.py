"""The five distances on lines, rectangles, masked domains and channels, against closed forms; on squares in test_mixture.py."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import ddis
from ddis.data.references import References
from ddis.evaluation.distances import directions, distances
from ddis.evaluation.posteriors import METRICS, Compared
from ddis.fields.gaussian import neumann_spectrum
from ddis.grid import Grid, Space, square

SEED, SIZE = 5, 16
LINE = Space(Grid((SIZE,), (True,), (1.0,)))
RECTANGLE = Space(Grid((2 * SIZE, SIZE), (False, False), (2.0, 1.0)))
CHANNELS = Space(square(SIZE), 2)
SPACES = {"line": LINE, "rectangle": RECTANGLE, "channels": CHANNELS, "square": Space(square(SIZE))}
PROBLEMS = {
    "darcy-facies": {},
    "darcy-source": {},
    "burgers": {},
    "poisson-l-shape": {},
    "poisson": {"aspect": 2},
}


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_what_is_shifted_or_wider_is_so_in_every_space(space: Space):
    """Closed forms of a shift of 3, and of twice the spread; doubled fields have four times the power, an error of 3."""
    x = np.random.default_rng(SEED).standard_normal((64, *space.shape))
    assert max(vars(distances(x, x, space=space)).values()) < 1e-7
    mean = x.mean(axis=0)
    norms = np.linalg.norm(mean.reshape(space.channels, -1), axis=1)
    expected = np.sqrt(np.mean((3 * np.sqrt(np.prod(space.grid.shape)) / norms) ** 2))
    shifted = distances(x + 3.0, x, space=space)
    assert shifted.mean == pytest.approx(expected) and shifted.std == pytest.approx(0, abs=1e-12)
    along = directions(space).reshape(128, -1)
    along = along / np.linalg.norm(along, axis=1, keepdims=True)
    assert shifted.swd == pytest.approx(np.abs(3 * along.sum(axis=1)).mean(), rel=1e-6, abs=1e-9)
    assert distances(mean + 2 * (x - mean), x, space=space).std == pytest.approx(1)
    assert distances(2 * x, x, space=space).spectrum == pytest.approx(3)


def test_directions_have_the_spectrum_of_their_grid():
    """128 of them: of the 8 leading modes each has a variance within 5 standard errors, √(2 / 128) of it."""
    for space in (LINE, RECTANGLE, CHANNELS):
        modes = space.grid.basis.forward(torch.from_numpy(directions(space)).double()).reshape(-1, np.prod(space.grid.shape))
        spectrum = neumann_spectrum(space.grid).ravel()
        lead = np.argsort(-spectrum)[:8]
        found = modes.numpy()[:, lead].var(axis=0) / spectrum[lead]
        assert np.abs(found - 1).max() < 5 * np.sqrt(2 / len(modes))


def test_a_channel_counts_in_its_own_unit():
    """In other units, and with the scale in them, nothing changes; a large channel does not hide a small one."""
    rng = np.random.default_rng(SEED)
    x, y = rng.standard_normal((12, *CHANNELS.shape)), 1.3 * rng.standard_normal((20, *CHANNELS.shape)) + 0.2
    plain = distances(x, y, scale=[1.0, 1.0], space=CHANNELS)
    units = np.array([1.0, 1000.0])[:, None, None]
    scaled = distances(units * x, units * y, scale=[1.0, 1000.0], space=CHANNELS)
    for name in METRICS:
        assert getattr(scaled, name) == pytest.approx(getattr(plain, name), rel=1e-9), name
    hidden = x.copy()
    hidden[:, 0] += 2
    assert distances(units * hidden, units * y, scale=[1.0, 1000.0], space=CHANNELS).mmd > 1.2 * scaled.mmd


def test_nodes_outside_the_domain_change_neither_moments_nor_discrepancy():
    """Half of a square, against the rectangle that it is; directions and rings are those of the square."""
    rng = np.random.default_rng(SEED)
    x, y = rng.standard_normal((10, SIZE, SIZE // 2)), 0.7 * rng.standard_normal((30, SIZE, SIZE // 2))
    whole = [np.concatenate([fields, np.zeros_like(fields)], axis=2) for fields in (x, y)]
    masked = distances(*whole, space=Space(Grid((SIZE, SIZE), (False, False), (1.0, 1.0), whole[0][0] != 0)))
    half = distances(x, y, space=Space(Grid((SIZE, SIZE // 2), (False, False), (1.0, 0.5))))
    for name in ("mean", "std", "mmd"):
        assert getattr(masked, name) == pytest.approx(getattr(half, name), rel=1e-9), name
    for name in ("swd", "spectrum"):
        assert getattr(masked, name) != pytest.approx(getattr(half, name), rel=1e-2), name


@pytest.mark.parametrize("name", PROBLEMS)
def test_every_problem_has_rows(name: str):
    """64 draws of the prior as a reference: its first half is the floor, 8 equal fields are further away."""
    problem = ddis.problem(name, resolution=SIZE, **PROBLEMS[name])
    space = problem.coefficient_space(SIZE)
    draws = problem.sample_coefficients(range(64), SIZE, SEED).numpy()[None].astype(np.float32)
    told = {"converged": [True], "kind": "mcmc", "coefficient_std": float(draws.std())}
    made = References(draws, np.full((1, 64), 1 / 64), draws.mean(axis=1), draws.std(axis=1), told)
    compared = Compared(name, "sparse", made, space)
    floor = compared.floor_row(8)
    equal = replace(made, coefficient=np.concatenate([draws[:, [0] * 32], draws[:, 32:]], axis=1))
    worse = Compared(name, "sparse", equal, space).floor_row(8)
    assert all(np.isfinite(floor[metric]) and floor[metric] > 0 for metric in METRICS)
    assert worse["mmd"] > floor["mmd"] and worse["std"] > floor["std"]


def test_other_shapes_than_those_of_the_space_are_refused():
    x = np.zeros((3, SIZE, SIZE))
    with pytest.raises(ValueError, match=r"expected \[K, 32, 16\] and \[L, 32, 16\]"):
        distances(x, x, space=RECTANGLE)
