"""Calibration against known distributions, and the band of the rank histogram against correlated ensembles. Seeds are stated."""

import numpy as np
import pytest
from scipy import ndimage, stats

from ddis.evaluation.calibration import calibration, rank_band

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


@pytest.mark.parametrize("size", [4, 8])
def test_exact_samples_cover_as_stated(size):
    samples, truth = gaussian_ensemble(4, fields=20, size=size, side=32)
    result = calibration(samples, truth)
    assert result is not None
    assert abs(result.coverage50 - 0.5) < binomial_bound(0.5, truth.size)
    assert abs(result.coverage90 - 0.9) < binomial_bound(0.9, truth.size)
    # The ratio of two root mean squares over 20480 nodes: relative error about 1 / sqrt(2 x 20480) each.
    assert result.spread_skill == pytest.approx(1, abs=0.03)


def test_narrow_samples_are_found_out():
    samples, truth = gaussian_ensemble(5, fields=10, size=8, side=32, width=0.5)
    result = calibration(samples, truth)
    assert result is not None and result.coverage90 < 0.75 and result.coverage50 < 0.4
    # Error of the mean: 1 + 0.25 / 8; spread: 9 / 8 x 0.25.
    assert result.spread_skill == pytest.approx(np.sqrt(9 / 8 * 0.25 / (1 + 0.25 / 8)), abs=0.03)


def test_coverage_interval_by_hand():
    samples = np.array([-1.0, 0.0, 1.0, 2.0]).reshape(1, 4, 1, 1) + np.zeros((1, 4, 2, 2))
    radius = stats.t.ppf(0.95, 3) * samples[0, :, 0, 0].std(ddof=1) * np.sqrt(1.25)
    truth = 0.5 + np.array([[[radius - 1e-9, radius + 1e-9], [-radius + 1e-9, -radius - 1e-9]]])
    result = calibration(samples, truth)
    assert result is not None and result.covered90.tolist() == [0.5] and result.covered50.tolist() == [0]


def test_crps_of_gaussian_samples_has_its_closed_form():
    samples, truth = gaussian_ensemble(6, fields=40, size=8, side=32)
    # E |X - Y| - E |X - X'| / 2 for X, X', Y ~ N(0, 1) is 1 / sqrt(pi); the fair form has no bias in K.
    score = calibration(samples, truth)
    assert score is not None and score.crps == pytest.approx(1 / np.sqrt(np.pi), abs=0.01)


def test_crps_equals_its_definition():
    samples, truth = RNG(7).standard_normal((1, 5, 4, 4)), RNG(8).standard_normal((1, 4, 4))
    pairs = np.abs(samples[:, :, None] - samples[:, None]).sum(axis=(1, 2)) / (2 * 5 * 4)
    expected = (np.abs(samples - truth[:, None]).mean(axis=1) - pairs).mean()
    result = calibration(samples, truth)
    assert result is not None and result.crps == pytest.approx(expected)


def test_ranks_of_exact_samples_are_uniform():
    samples, truth = gaussian_ensemble(9, fields=20, size=8, side=32)
    result = calibration(samples, truth)
    assert result is not None and result.ranks.shape == (20, 9) and result.ranks.sum() == truth.size
    assert stats.chisquare(result.ranks.sum(axis=0)).pvalue > 1e-3


def test_ranks_by_hand_and_ties_shared_out():
    samples = np.array([1.0, 2.0, 3.0, 4.0]).reshape(1, 4, 1, 1) + np.zeros((1, 4, 2, 2))
    truth = np.array([[[0.0, 2.5], [9.0, 3.5]]])
    result = calibration(samples, truth)
    assert result is not None and result.ranks.tolist() == [[1, 0, 1, 1, 1]]
    tied = np.zeros((2, 4, 5, 5))
    tied[1] = 1.0  # one value per field, the truth among it: every rank is as good as another
    result = calibration(tied, tied[:, 0])
    assert result is not None and result.ranks.tolist() == [[5] * 5] * 2


def test_no_calibration_from_few_samples_or_known_nodes():
    samples, truth = gaussian_ensemble(10, fields=2, size=3, side=4)
    assert calibration(samples, truth) is None
    assert calibration(np.zeros((2, 4, 4, 4)), np.zeros((2, 4, 4))) is None


def test_known_boundary_does_not_count_as_covered():
    samples, truth = gaussian_ensemble(11, fields=10, size=8, side=16)
    inner = calibration(samples[..., 1:-1, 1:-1], truth[..., 1:-1, 1:-1])
    edge = np.zeros((16, 16))
    edge[1:-1, 1:-1] = 1
    outer = calibration(samples * edge, truth * edge)
    assert inner is not None and outer is not None and outer.coverage90 == inner.coverage90


def smooth_ensemble(seed: int, fields: int, size: int, side: int, width: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Truth and samples of one distribution, scaled samples aside, whose nodes are correlated over a quarter of the side."""
    noise = RNG(seed).standard_normal((fields, size + 1, side, side))
    field = ndimage.gaussian_filter(noise, side / 8, axes=(2, 3), mode="wrap")
    field /= field.std()
    return width * field[:, 1:], field[:, 0]


def outside(samples: np.ndarray, truth: np.ndarray) -> int:
    """Number of ranks outside the band."""
    result, (low, high) = calibration(samples, truth), rank_band(samples, truth)
    assert result is not None
    share = result.ranks.sum(axis=0) / result.ranks.sum(axis=0).mean()
    return int(((share < low) | (share > high)).sum())


def test_the_band_holds_95_percent_of_calibrated_ensembles_though_nodes_are_correlated():
    """60 calibrated ensembles of 8 fields, seeds 0 to 59: of 60 x 5 ranks 5 % should be outside, give or take 4 deviations."""
    missed = [outside(*smooth_ensemble(seed, fields=8, size=4, side=12)) for seed in range(60)]
    assert np.mean(missed) / 5 == pytest.approx(0.05, abs=4 * np.std(missed) / 5 / np.sqrt(60))
    assert np.mean(missed) / 5 < 0.12


def test_the_band_is_as_wide_as_the_correlation_makes_it():
    """Independent nodes would give a band of 1.96 standard deviations of a binomial share; smooth fields a far wider one."""
    nodes = 8 * 12 * 12
    binomial = 2 * 1.96 * np.sqrt(4 / nodes)  # K = 4: frequency / uniform has variance K / nodes
    for ensemble, low, high in ((gaussian_ensemble, 0.9, 1.1), (smooth_ensemble, 3, 30)):
        band = rank_band(*ensemble(1, fields=8, size=4, side=12))
        assert low < np.ptp(band, axis=0).mean() / binomial < high


def test_the_band_finds_narrow_samples():
    assert outside(*smooth_ensemble(2, fields=16, size=8, side=12, width=0.4)) >= 3
