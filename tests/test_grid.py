"""Grids, bases, random fields and noise on lines, rectangles and masked domains."""

import numpy as np
import pytest
import torch

from ddis.errors import InputError
from ddis.fields.gaussian import matern_spectrum, sample_gaussian
from ddis.fields.noise import RandomFieldNoise, make_noise
from ddis.grid import Grid, Space, square
from ddis.randomness import generator

LINE = Grid((24,), (True,), (1.0,))
RECTANGLE = Grid((18, 6), (False, False), (3.0, 1.0))
MIXED = Grid((8, 12), (True, False), (1.0, 2.0))
GRIDS = [LINE, RECTANGLE, MIXED]


def generators(count: int):
    return [generator(0, "grid", i) for i in range(count)]


def unit_fields(grid: Grid) -> torch.Tensor:
    count = int(np.prod(grid.shape))
    return torch.eye(count, dtype=torch.float64).reshape(count, *grid.shape)


def dense_covariance(grid: Grid, length: float, nugget: float) -> np.ndarray:
    """exp(-d / length) + nugget, node by node."""
    places = np.stack([axis.ravel() for axis in np.meshgrid(*grid.coordinates(), indexing="ij")], axis=1)
    apart = np.abs(places[:, None] - places[None])
    for axis, (period, wraps) in enumerate(zip(grid.lengths, grid.periodic, strict=True)):
        if wraps:
            apart[..., axis] = np.minimum(apart[..., axis], period - apart[..., axis])
    distance = np.linalg.norm(apart, axis=-1)
    return (np.exp(-distance / length) + nugget * np.eye(len(distance))) / (1 + nugget)


def test_nodes_are_where_the_docstring_says():
    assert np.allclose(LINE.coordinates()[0], np.arange(24) / 24)
    x, y = RECTANGLE.coordinates()
    assert np.allclose(x, np.linspace(0, 3, 18)) and np.allclose(y, np.linspace(0, 1, 6)) and str(RECTANGLE) == "18 x 6"
    assert Space(RECTANGLE).shape == (18, 6) and Space(RECTANGLE, 2).shape == (2, 18, 6)


def test_interior_nodes_are_those_with_all_neighbours():
    assert LINE.interior.all() and square(5, periodic=True).interior.all()
    assert RECTANGLE.interior.sum() == 16 * 4 and not RECTANGLE.interior[0].any() and not RECTANGLE.interior[:, -1].any()
    assert MIXED.interior[:, 1:-1].all() and not MIXED.interior[:, [0, -1]].any()
    mask = np.ones((7, 7), bool)
    mask[4:, 4:] = False
    expected = np.zeros((7, 7), bool)
    expected[1:6, 1:3] = expected[1:3, 1:6] = True  # the nodes of the re-entrant sides and their corner (3, 3) are boundary
    assert np.array_equal(Grid((7, 7), (False, False), (1.0, 1.0), mask).interior, expected)


@pytest.mark.parametrize(
    ("shape", "mask"), [((4, 4, 4), None), ((4, 4), np.ones((3, 3), bool)), ((4, 4), np.zeros((4, 4), bool))]
)
def test_a_grid_that_cannot_be_is_refused(shape, mask):
    with pytest.raises(InputError, match="accepted"):
        Grid(shape, (False,) * len(shape), (1.0,) * len(shape), mask)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_bases_are_orthonormal_and_variance_is_the_diagonal_of_the_covariance(grid):
    functions = grid.basis.inverse(unit_fields(grid)).flatten(1)
    assert torch.allclose(functions @ functions.T, torch.eye(len(functions), dtype=torch.float64), atol=1e-12)
    assert torch.allclose(grid.basis.forward(grid.basis.inverse(unit_fields(grid))), unit_fields(grid), atol=1e-12)
    spectrum = torch.rand(grid.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    covariance = functions.T @ (spectrum.flatten()[:, None] * functions)
    assert torch.allclose(grid.basis.variance(spectrum).flatten(), covariance.diagonal(), atol=1e-12)


def test_wavenumbers_are_those_of_derivatives():
    """Second differences of a fine grid's slowest modes are -κ² times these."""
    for fine in (Grid((400,), (True,), (2.0,)), Grid((401, 301), (False, False), (3.0, 1.0))):
        for mode in ((1,), (2,), (3,)) if len(fine.shape) == 1 else ((1, 0), (0, 2), (2, 1)):
            unit = torch.zeros(fine.shape, dtype=torch.float64)
            unit[mode] = 1.0
            field = fine.basis.inverse(unit).numpy()
            inner = tuple(slice(100, 200) for _ in fine.shape)
            laplace = sum(
                (np.roll(field, 1, axis) - 2 * field + np.roll(field, -1, axis)) / step**2
                for axis, step in enumerate(fine.spacing)
            )
            kappa = np.pi**2 * fine.basis.half_periods_squared[mode]
            assert np.allclose(laplace[inner], -kappa * field[inner], atol=0.02 * kappa * np.abs(field).max())


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_noise_spectrum_is_the_diagonal_of_its_covariance(grid):
    noise = RandomFieldNoise(grid, "exponential", 0.2, 1e-4)
    functions = grid.basis.inverse(unit_fields(grid)).flatten(1).numpy()
    transformed = functions @ dense_covariance(grid, 0.2, 1e-4) @ functions.T
    assert np.allclose(noise.spectrum(grid.basis).flatten(), np.diag(transformed), atol=1e-12)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_noise_has_the_covariance_of_the_formula(grid):
    """4,000 draws: a sample covariance has a standard error of at most sqrt(2/4000) = 0.022; 5 of them allowed."""
    draws = RandomFieldNoise(grid, "exponential", 0.2, 1e-4).sample((4000, 1, *grid.shape), generators(4000)).flatten(1).numpy()
    assert np.abs(draws.T @ draws / 4000 - dense_covariance(grid, 0.2, 1e-4)).max() < 5 * 0.022
    diagonal = make_noise(grid.basis, "exponential", 0.2, 1e-4, diagonal=True)
    assert float(diagonal.spectrum(grid.basis).mean()) == pytest.approx(1.0, abs=1e-12)


def test_a_random_field_has_the_same_variance_on_a_longer_domain_and_a_finer_grid():
    """On a line and for α = 2 it is ∫ (κ² + τ²)^-2 dκ / 2π = 1 / (4 τ³)."""
    for grid in (Grid((256,), (True,), (4.0,)), Grid((1024,), (True,), (16.0,)), Grid((2049,), (False,), (16.0,))):
        spectrum = matern_spectrum(grid, 2.0, 5.0, 1.0)
        middle = grid.basis.variance(torch.from_numpy(spectrum))[grid.shape[0] // 2]
        missing = 1 / (grid.lengths[0] * 5.0**4)  # of the mean, which is left out
        assert float(middle) == pytest.approx(1 / (4 * 5.0**3) - missing, rel=0.01)


def test_fields_of_a_periodic_line_are_the_same_at_every_resolution_and_channels_are_independent():
    coarse, fine = (Grid((size,), (True,), (1.0,)) for size in (33, 99))
    a, b = (sample_gaussian([5, 6], grid, matern_spectrum(grid, 4.0, 5.0, 1.0), 0) for grid in (coarse, fine))
    assert torch.allclose(a, b[:, ::3], atol=0.01 * a.abs().max())
    both = sample_gaussian(range(200), LINE, np.stack([matern_spectrum(LINE, 2.0, 5.0, 1.0)] * 2), 0)
    assert both.shape == (200, 2, 24)
    assert abs(np.corrcoef(both[:, 0, 3], both[:, 1, 3])[0, 1]) < 5 / np.sqrt(200)
