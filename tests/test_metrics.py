"""Metrics against hand-computed values, closed forms and known distributions."""

from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from ddis.evaluation import metrics

RNG = np.random.default_rng


def gaussian_ensemble(seed: int, fields: int, size: int, side: int, width: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Truth from N(mean, 1) and samples from N(mean, width^2) about the same random means, all nodes independent."""
    rng = RNG(seed)
    mean = 3 * rng.standard_normal((fields, side, side))
    samples = mean[:, None] + width * rng.standard_normal((fields, size, side, side))
    return samples, mean + rng.standard_normal((fields, side, side))


def binomial_bound(level: float, count: int) -> float:
    """Four standard deviations of a share of `count` independent nodes."""
    return 4 * float(np.sqrt(level * (1 - level) / count))


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
    assert expected.shape[-1] == side // 2 - 1 == len(metrics.ring_wavenumbers(side))
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


@pytest.mark.parametrize("size", [4, 8])
def test_exact_samples_cover_as_stated(size):
    samples, truth = gaussian_ensemble(4, fields=20, size=size, side=32)
    result = metrics.calibration(samples, truth)
    assert result is not None
    assert abs(result.coverage50 - 0.5) < binomial_bound(0.5, truth.size)
    assert abs(result.coverage90 - 0.9) < binomial_bound(0.9, truth.size)
    # The ratio of two root mean squares over 20480 nodes: relative error about 1 / sqrt(2 x 20480) each.
    assert result.spread_skill == pytest.approx(1, abs=0.03)


def test_narrow_samples_are_found_out():
    samples, truth = gaussian_ensemble(5, fields=10, size=8, side=32, width=0.5)
    result = metrics.calibration(samples, truth)
    assert result is not None and result.coverage90 < 0.75 and result.coverage50 < 0.4
    # Error of the mean: 1 + 0.25 / 8; spread: 9 / 8 x 0.25.
    assert result.spread_skill == pytest.approx(np.sqrt(9 / 8 * 0.25 / (1 + 0.25 / 8)), abs=0.03)


def test_coverage_interval_by_hand():
    samples = np.array([-1.0, 0.0, 1.0, 2.0]).reshape(1, 4, 1, 1) + np.zeros((1, 4, 2, 2))
    radius = stats.t.ppf(0.95, 3) * samples[0, :, 0, 0].std(ddof=1) * np.sqrt(1.25)
    truth = 0.5 + np.array([[[radius - 1e-9, radius + 1e-9], [-radius + 1e-9, -radius - 1e-9]]])
    np.testing.assert_array_equal(metrics.coverage(samples, truth, [0.9]), [0.5])


def test_crps_of_gaussian_samples_has_its_closed_form():
    samples, truth = gaussian_ensemble(6, fields=40, size=8, side=32)
    # E |X - Y| - E |X - X'| / 2 for X, X', Y ~ N(0, 1) is 1 / sqrt(pi); the fair form has no bias in K.
    score = metrics.calibration(samples, truth)
    assert score is not None and score.crps == pytest.approx(1 / np.sqrt(np.pi), abs=0.01)


def test_crps_equals_its_definition():
    samples, truth = RNG(7).standard_normal((1, 5, 4, 4)), RNG(8).standard_normal((1, 4, 4))
    pairs = np.abs(samples[:, :, None] - samples[:, None]).sum(axis=(1, 2)) / (2 * 5 * 4)
    expected = (np.abs(samples - truth[:, None]).mean(axis=1) - pairs).mean()
    result = metrics.calibration(samples, truth)
    assert result is not None and result.crps == pytest.approx(expected)


def test_ranks_of_exact_samples_are_uniform():
    samples, truth = gaussian_ensemble(9, fields=20, size=8, side=32)
    result = metrics.calibration(samples, truth)
    assert result is not None and len(result.ranks) == 9 and result.ranks.sum() == truth.size
    assert stats.chisquare(result.ranks).pvalue > 1e-3


def test_ranks_by_hand_and_ties_shared_out():
    samples = np.array([1.0, 2.0, 3.0, 4.0]).reshape(1, 4, 1, 1) + np.zeros((1, 4, 2, 2))
    truth = np.array([[[0.0, 2.5], [9.0, 3.5]]])
    result = metrics.calibration(samples, truth)
    assert result is not None and result.ranks.tolist() == [1, 0, 1, 1, 1]
    tied = np.zeros((2, 4, 5, 5))
    tied[1] = 1.0  # one value per field, the truth among it: every rank is as good as another
    result = metrics.calibration(tied, tied[:, 0])
    assert result is not None and result.ranks.tolist() == [10] * 5


def test_no_calibration_from_few_samples_or_known_nodes():
    samples, truth = gaussian_ensemble(10, fields=2, size=3, side=4)
    assert metrics.calibration(samples, truth) is None
    with pytest.raises(ValueError, match="at least 4"):
        metrics.coverage(samples, truth, [0.5])
    assert metrics.calibration(np.zeros((2, 4, 4, 4)), np.zeros((2, 4, 4))) is None


def test_known_boundary_does_not_count_as_covered():
    samples, truth = gaussian_ensemble(11, fields=10, size=8, side=16)
    inner = metrics.calibration(samples[..., 1:-1, 1:-1], truth[..., 1:-1, 1:-1])
    edge = np.zeros((16, 16))
    edge[1:-1, 1:-1] = 1
    assert metrics.calibration(samples * edge, truth * edge).__dict__["coverage90"] == inner.coverage90


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
    assert metrics.failed_fields(samples).tolist() == [False, True, False]
    assert metrics.failed_fields(samples, other).tolist() == [False, True, True]
    assert metrics.standard_error([1.0, 2.0, 3.0, 4.0]) == pytest.approx(np.sqrt(5 / 3) / 2)
    assert metrics.standard_error([1.0]) is None
