"""Metrics against hand-computed values, closed forms and known distributions."""

from itertools import pairwise

import numpy as np
import pytest

from ddis.data.store import failed_fields
from ddis.evaluation import metrics
from ddis.grid import Space, square

RNG = np.random.default_rng


def test_relative_l2_by_hand_and_over_samples():
    truth = np.array([[[3.0, 0.0], [0.0, 4.0]]])
    estimate = np.stack([truth[0], truth[0] + [[1.0, 0.0], [0.0, 0.0]], 0 * truth[0]])[None]
    np.testing.assert_allclose(metrics.relative_l2(estimate, truth[:, None]), [[0.0, 0.2, 1.0]])


def test_relative_l2_is_computed_in_float64():
    truth = np.full((1, 2, 2), 1e-30, np.float32)
    assert metrics.relative_l2(2 * truth, truth)[0] == pytest.approx(1.0)


def test_error_rate_counts_nodes_beyond_the_middle():
    truth = np.array([[3.0, 12.0], [12.0, 3.0]])
    estimate = np.array([[7.4, 7.6], [3.1, 40.0]])
    assert metrics.two_values(truth) == (3.0, 12.0)
    assert metrics.error_rate(estimate, truth, (3.0, 12.0)) == 0.5
    assert metrics.two_values(RNG(0).standard_normal((2, 4, 4))) is None


@pytest.mark.parametrize("side", [8, 32, 33, 64])
def test_rings_follow_the_written_edges(side):
    power_of = RNG(1).standard_normal((2, side, side))
    frequency = np.fft.fftfreq(side)
    k = np.hypot(frequency[:, None], frequency)
    edges = np.linspace(0, 0.5, side // 2 + 1)[1:]
    power = np.abs(np.fft.fft2(power_of)) ** 2
    slack = 1e-12  # modes on an edge belong to the ring above it
    rings = [(k >= low - slack) & (k < high - slack) for low, high in pairwise(edges)]
    expected = np.stack([power[:, ring].mean(axis=-1) for ring in rings], axis=-1)
    assert expected.shape[-1] == side // 2 - 1 == len(metrics.ring_wavenumbers(Space(square(side))))
    np.testing.assert_allclose(metrics.ring_power(power_of), expected, rtol=1e-12)


def test_rings_leave_out_the_mean_and_the_corners():
    side = 16
    wave = (-1.0) ** np.add.outer(np.arange(side), np.arange(side))
    assert metrics.ring_power(5 + wave).max() < 1e-18


def test_a_plane_wave_lies_in_its_own_ring():
    side, k = 32, 5
    power = metrics.ring_power(np.cos(2 * np.pi * k * np.arange(side) / side)[:, None] * np.ones(side))
    assert power.argmax() == k - 1
    members = int((np.floor(np.hypot(*np.meshgrid(*2 * [np.fft.fftfreq(side, 1 / side)]))) == k).sum())
    assert power[k - 1] == pytest.approx(2 * (side**2 / 2) ** 2 / members)


def test_spectral_error_of_identical_and_scaled_fields():
    truth = RNG(2).standard_normal((3, 32, 32))
    np.testing.assert_allclose(metrics.spectral_error(truth, truth), 1e-10, rtol=1e-6)
    for c in (0.5, 1.1, 3.0):
        np.testing.assert_allclose(metrics.spectral_error(c * truth, truth), abs(c**2 - 1), rtol=1e-6)


def test_spectral_error_is_blind_to_shifts_and_is_one_for_zero():
    truth = RNG(3).standard_normal((2, 16, 16))
    assert metrics.spectral_error(np.roll(truth, (3, 5), axis=(1, 2)), truth).max() < 1e-9
    np.testing.assert_allclose(metrics.spectral_error(0 * truth, truth), 1.0, rtol=1e-6)


def test_ring_power_refuses_what_is_no_square_field():
    with pytest.raises(ValueError, match="at least 4"):
        metrics.ring_power(np.zeros((2, 8, 7)))


def test_misfit_is_the_noise_for_the_true_solution():
    rng = RNG(12)
    solution = rng.standard_normal((6, 64, 64))
    mask = rng.random((6, 64, 64)) < 0.25
    observation = np.where(mask, solution + 0.1 * rng.standard_normal(solution.shape), 0.0)
    fit = metrics.misfit(np.stack([solution, solution + 0.3], axis=1), observation, mask, scale=2.0)
    np.testing.assert_allclose(fit.mean(axis=0), [0.05, np.hypot(0.1, 0.3) / 2], rtol=0.02)


def test_failed_fields_and_standard_error():
    samples = np.zeros((3, 2, 4, 4))
    samples[1, 1, 2, 2] = np.nan
    other = np.zeros((3, 4, 4))
    other[2, 0, 0] = np.inf
    assert failed_fields(samples).tolist() == [False, True, False]
    assert failed_fields(samples, other).tolist() == [False, True, True]
    assert metrics.standard_error([1.0, 2.0, 3.0, 4.0]) == pytest.approx(np.sqrt(5 / 3) / 2)
    assert metrics.standard_error([1.0]) is None
