"""The kernel on the mean absolute error: what it is worth, and its posterior by weighted draws against numerical integration."""

import math

import numpy as np
import pytest
import torch

from ddis.observe.likelihood import negative_log, worth
from ddis.references.weighted import systematic, weighted

SEED, VALUES = 2, 40


def test_a_kernel_says_as_much_as_the_gaussian_errors_that_it_is_worth():
    """10,000 Gaussian residuals: the two agree within the 1 % that MAE² of so many is known to."""
    residual, variance = (
        torch.randn(10_000, generator=torch.Generator().manual_seed(SEED), dtype=torch.float64),
        torch.ones(10_000),
    )
    assert worth("gaussian", 10_000) == 1
    kernel = negative_log("mean-absolute", residual, variance)
    assert float(negative_log("gaussian", residual, variance * worth("mean-absolute", 10_000))) == pytest.approx(
        float(kernel), rel=0.03
    )


def test_weighted_draws_have_the_moments_of_the_kernels_posterior():
    """y_j = a h_j + e_j, a ~ N(0, 1): the posterior of a by quadrature. 8,000 draws: errors of about 1 % of its spread."""
    rng = np.random.default_rng(SEED)
    h, sigma = rng.standard_normal(VALUES), 0.1
    y = 0.7 * h + sigma * rng.standard_normal(VALUES)
    grid = np.linspace(-4, 4, 20_001)
    log = -(np.abs(grid[:, None] * h - y).mean(axis=1) ** 2) / (2 * sigma**2) - grid**2 / 2
    p = np.exp(log - log.max())
    mean = (p * grid).sum() / p.sum()
    std = math.sqrt((p * (grid - mean) ** 2).sum() / p.sum())
    r = worth("mean-absolute", VALUES) * sigma**2
    precision = 1 + h @ h / r
    draws = torch.from_numpy((h @ y / r / precision + rng.standard_normal(8000) / math.sqrt(precision))[:, None])
    variance = torch.full((VALUES,), sigma**2, dtype=torch.float64)
    found = weighted(draws, draws * torch.from_numpy(h), torch.from_numpy(y), variance, "mean-absolute")
    assert float(found.mean) == pytest.approx(mean, abs=0.05 * std) and float(found.std) == pytest.approx(std, rel=0.05)
    assert len(found.draws) == 2000 and 0.5 < found.ess / 8000 <= 1
    assert float(found.draws.mean()) == pytest.approx(mean, abs=0.1 * std)


def test_systematic_resampling_keeps_to_the_weights_within_one():
    weights = torch.from_numpy(np.random.default_rng(SEED).random(50))
    counts = torch.bincount(systematic(weights, 200), minlength=50)
    assert ((counts - 200 * weights / weights.sum()).abs() < 1).all()
    assert torch.equal(systematic(torch.ones(8), 8), torch.arange(8))
