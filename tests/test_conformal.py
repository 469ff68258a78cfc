"""The split-conformal factor: its guarantee over many draws, and its scores by hand. Seeds are stated."""

import numpy as np
import pytest
from scipy import stats

from ddis.evaluation import conformal

RNG = np.random.default_rng


def fields(seed: int, count: int, size: int = 6, nodes: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Samples of half the right spread about correlated errors whose size differs from field to field: nothing is calibrated."""
    rng = RNG(seed)
    scale = rng.gamma(2.0, size=(count, 1)) + 0.1
    mean = rng.standard_normal((count, nodes))
    truth = mean + scale * (0.7 * rng.standard_normal((count, 1)) + 0.7 * rng.standard_normal((count, nodes)))
    return mean[:, None] + 0.5 * rng.standard_normal((count, size, nodes)), truth


@pytest.mark.parametrize("held_out", [9, 24, 60])
def test_the_factor_covers_as_guaranteed_whatever_the_samples(held_out):
    """One more field each of 1500 times, seed 1: between 1 - α and 1 - α + 1 / (n + 1), give or take 4 errors of 0.8 %."""
    scores = conformal.scores(*fields(1, 1500 * (held_out + 1))).reshape(1500, held_out + 1)
    covered = np.mean([row[0] <= conformal.factor(row[1:]) for row in scores])
    assert 0.9 - 0.032 < covered < 0.9 + 1 / (held_out + 1) + 0.032
    # Without ties the coverage is known: the share of the places that one more score can take.
    assert covered == pytest.approx(np.ceil((held_out + 1) * 0.9) / (held_out + 1), abs=0.032)


def test_a_score_is_the_smallest_factor_that_holds_the_share_of_the_nodes():
    samples, truth = fields(2, 7)
    found = conformal.scores(samples, truth)
    half = stats.t.ppf(0.95, 5) * np.sqrt(1 + 1 / 6) * samples.std(axis=1, ddof=1)
    inside = [
        np.abs(truth - samples.mean(axis=1)) <= factor[:, None] * half for factor in (found * (1 + 1e-9), found * (1 - 1e-9))
    ]
    assert (inside[0].sum(axis=1) == 18).all() and (inside[1].sum(axis=1) == 17).all()  # 90 % of 20 nodes, and one fewer


def test_intervals_of_exact_samples_need_little():
    """Gaussian nodes, 400 of a field: 90 % of them are inside with a standard deviation of 1.5 %, so it is near 1."""
    samples, truth = RNG(3).standard_normal((200, 8, 400)), RNG(4).standard_normal((200, 400))
    assert conformal.factor(conformal.scores(samples, truth)) == pytest.approx(1.0, abs=0.15)


def test_too_few_fields_give_no_factor():
    assert conformal.FEWEST == 9
    assert conformal.factor(np.ones(8)) is None and conformal.factor(np.ones(9)) == 1
    assert conformal.factor([*np.ones(8), np.inf]) is None


def test_nodes_without_spread_are_infinitely_wrong_and_known_ones_are_left_out():
    samples, truth = fields(5, 10)
    samples[:, :, :4], truth[:, :4] = 0.0, 0.0  # a boundary
    assert np.isfinite(conformal.scores(samples, truth)).all()
    assert conformal.scores(samples, truth) == pytest.approx(conformal.scores(samples[..., 4:], truth[..., 4:]))
    samples[0] = samples[0, :1]
    assert np.isinf(conformal.scores(samples, truth)[0])
