"""Bases against SciPy's transforms; noise against its covariance."""

import numpy as np
import pytest
import scipy.fft
import torch

from ddis.fields.bases import basis, sine_matrix
from ddis.fields.noise import DiagonalNoise, RandomFieldNoise, WhiteNoise, make_noise
from ddis.grid import square
from ddis.randomness import WORTH_A_THREAD, generator, white_noise


def generators(count: int, stream: str = "test"):
    return [generator(0, stream, i) for i in range(count)]


@pytest.mark.parametrize("name", ["cosine", "fourier"])
@pytest.mark.parametrize("size", [7, 16])
def test_bases_are_orthonormal(name, size):
    q = basis(name, size).matrices[0]
    assert torch.allclose(q @ q.T, torch.eye(size, dtype=torch.float64), atol=1e-13)


def test_cosine_basis_is_the_orthonormal_dct():
    field = np.random.default_rng(0).standard_normal((3, 12, 12))
    expected = scipy.fft.dctn(field, type=2, norm="ortho", axes=(1, 2))
    assert np.allclose(basis("cosine", 12).forward(torch.from_numpy(field)), expected, atol=1e-12)
    assert np.allclose(basis("cosine", 12).inverse(torch.from_numpy(expected)), field, atol=1e-12)


def test_sine_matrix_is_the_orthonormal_dst():
    values = np.random.default_rng(0).standard_normal(9)
    assert np.allclose(sine_matrix(9) @ values, scipy.fft.dst(values, type=1, norm="ortho"), atol=1e-13)


@pytest.mark.parametrize("size", [8, 9])
def test_fourier_basis_diagonalises_shift_invariant_operators(size):
    modes = basis("fourier", size)
    kernel = np.exp(-np.minimum(np.arange(size), size - np.arange(size)))
    circulant = torch.from_numpy(np.stack([np.roll(kernel, i) for i in range(size)]))
    eigenvalues = np.fft.fft(kernel).real[modes.axis_frequencies[0]]
    assert np.allclose(modes.matrices[0] @ circulant @ modes.matrices[0].T, np.diag(eigenvalues), atol=1e-12)


def dense_covariance(noise: RandomFieldNoise) -> np.ndarray:
    """[S², S²] from the formula, point by point."""
    size, periodic = noise.grid.shape[0], noise.grid.periodic[0]
    spacing = 1 / size if periodic else 1 / (size - 1)
    i, j = (g.ravel() for g in np.meshgrid(np.arange(size), np.arange(size), indexing="ij"))
    d = [abs(v[:, None] - v[None, :]) for v in (i, j)]
    if periodic:
        d = [np.minimum(v, size - v) for v in d]
    distance = spacing * np.hypot(*d)
    return (np.exp(-distance / noise.length) + noise.nugget * (distance == 0)) / (1 + noise.nugget)


@pytest.mark.parametrize("periodic", [False, True])
def test_random_field_noise_has_the_covariance_of_the_formula(periodic):
    """6,000 draws at 8 x 8: a sample covariance has a standard error of at most sqrt(2/6000) = 0.018; 5 of them allowed."""
    noise = RandomFieldNoise(square(8, periodic), "exponential", 0.2, 1e-4)
    draws = noise.sample((6000, 1, 8, 8), generators(6000))[:, 0].flatten(1).numpy()
    assert np.abs(draws.T @ draws / 6000 - dense_covariance(noise)).max() < 5 * 0.018


@pytest.mark.parametrize("name", ["cosine", "fourier"])
def test_noise_spectrum_is_the_diagonal_of_its_covariance(name):
    modes = basis(name, 8)
    noise = RandomFieldNoise(square(8, name == "fourier"), "exponential", 0.2, 1e-4)
    functions = modes.inverse(torch.eye(64, dtype=torch.float64).reshape(64, 8, 8)).flatten(1).numpy()
    transformed = functions @ dense_covariance(noise) @ functions.T
    assert np.allclose(noise.spectrum(modes).flatten(), np.diag(transformed), atol=1e-12)
    if name == "fourier":  # there a stationary field is diagonal; in the cosine basis only nearly so
        assert np.abs(transformed - np.diag(np.diag(transformed))).max() < 1e-10


def test_diagonal_noise_has_independent_modes_and_unit_mean_variance():
    """4,000 draws: standard error of a correlation 0.016; 5 of them allowed."""
    modes = basis("cosine", 8)
    noise = DiagonalNoise(RandomFieldNoise(square(8), "exponential", 0.2), modes)
    draws = modes.forward(noise.sample((4000, 1, 8, 8), generators(4000))[:, 0].double()).flatten(1)
    scaled = (draws / noise.spectrum(modes).flatten().sqrt()).numpy()
    assert np.abs(scaled.T @ scaled / 4000 - np.eye(64)).max() < 5 * np.sqrt(2 / 4000)
    assert float(noise.spectrum(modes).mean()) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("kernel", ["white", "exponential"])
@pytest.mark.parametrize("diagonal", [True, False])
def test_noise_depends_on_its_generator_alone(kernel, diagonal):
    noise = make_noise(basis("cosine", 8), kernel, 0.1, 1e-4, diagonal)
    whole = noise.sample((5, 2, 8, 8), generators(5))
    assert torch.equal(whole[3:], noise.sample((2, 2, 8, 8), generators(5)[3:]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_noise_is_the_same_from_any_number_of_threads(dtype):
    """Rows enough that threads are worth it, one of them without a partner."""
    shape, rows = (WORTH_A_THREAD // 2,), 7
    before, drawn = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            drawn.append(white_noise(shape, generators(rows), dtype))
    finally:
        torch.set_num_threads(before)
    alone = [rng.standard_normal(shape[0], dtype=dtype) for rng in generators(rows)]
    assert np.array_equal(drawn[0], drawn[1]) and np.array_equal(drawn[0], alone)


def test_published_kernel_is_nearly_white_on_coarse_grids():
    """Correlation of neighbours with length 0.005: 0.21 at 128, 0.04 at 64, 0.002 at 32 by its formula."""
    for size, expected in ((128, 0.21), (64, 0.04), (32, 0.002)):
        noise = RandomFieldNoise(square(size), "exponential", 0.005, 1e-4)
        assert float(noise.covariance(np.array(0.0), np.array(1.0))) == pytest.approx(expected, rel=0.25)


def test_too_long_a_kernel_is_an_error():
    with pytest.raises(ValueError, match=r"noise\.length 5"):
        RandomFieldNoise(square(16), "gaussian", 5.0)


def test_diagonal_noise_refuses_another_basis():
    noise = DiagonalNoise(RandomFieldNoise(square(8), "exponential", 0.2), basis("cosine", 8))
    with pytest.raises(ValueError, match="fourier"):
        noise.spectrum(basis("fourier", 8))
    assert torch.equal(WhiteNoise().spectrum(basis("fourier", 8)), torch.ones(8, 8, dtype=torch.float64))
