"""The coefficients' random field, and the statistics of the three elliptic problems against the public benchmark's.

1,000 fields at 128 x 128. Sampling errors follow from the closed form: a mode of variance c has a sample variance of relative
standard error √(2/N), and the mean over nodes of a² has variance 2 Σ c² / S⁴ per field.
"""

import numpy as np
import pytest
import torch
from scipy import stats

from ddis.fields.bases import basis
from ddis.fields.gaussian import neumann_spectrum, sample_neumann
from ddis.pde import make_problem

SIZE, COUNT, SEED = 128, 1000, 11


@pytest.fixture(scope="module")
def fields() -> torch.Tensor:
    return sample_neumann(range(COUNT), SIZE, SEED)


@pytest.fixture(scope="module")
def power(fields) -> np.ndarray:
    """Sum over the fields of the squared modes [S, S]."""
    return sum((basis("cosine", SIZE).forward(part) ** 2).sum(0) for part in fields.split(100)).numpy()


def test_spectrum_follows_the_formula_in_every_ring(power):
    """Σ x²/c over a ring of n modes is chi-square with n N degrees of freedom; two-sided, 1e-3 in all."""
    k = np.arange(SIZE)
    formula = SIZE**2 * 3.0**2 * (np.pi**2 * (k[:, None] ** 2 + k[None, :] ** 2) + 9.0) ** -2.0
    ring = np.hypot(k[:, None], k[None, :]).round().astype(int)
    varies = ring > 0
    assert power[0, 0] < 1e-20 * power[0, 1]
    assert np.allclose(neumann_spectrum(SIZE)[varies], formula[varies], rtol=1e-14)
    total = np.bincount(ring[varies], (power / formula)[varies])[1:]
    freedom = COUNT * np.bincount(ring[varies])[1:]
    tail = stats.chi2.sf(total, freedom)
    p = 2 * np.minimum(tail, 1 - tail)
    assert p.min() > 1e-3 / len(p)
    assert stats.kstest(p, "uniform").pvalue > 1e-3


def test_another_smoothness_and_length_follow_the_formula():
    modes = basis("cosine", 32).forward(sample_neumann(range(2000), 32, SEED, alpha=3.0, tau=7.0))
    k = np.arange(32)
    formula = 32**2 * 7.0**4 * (np.pi**2 * (k[:, None] ** 2 + k[None, :] ** 2) + 49.0) ** -3.0
    total = float((modes**2).sum(0).flatten()[1:].numpy() @ (1 / formula.ravel()[1:]))
    freedom = 2000 * (32**2 - 1)
    assert abs(total / freedom - 1) < 3 * np.sqrt(2 / freedom)


def test_pointwise_standard_deviations(fields):
    """Over the grid within three standard errors; at every node within what the largest of 16,384 may do (1e-3, Bonferroni)."""
    spectrum = torch.from_numpy(neumann_spectrum(SIZE))
    variance = basis("cosine", SIZE).variance(spectrum)
    overall, sampled = float(variance.mean().sqrt()), float((fields**2).mean().sqrt())
    error = float((2 * (spectrum**2).sum() / COUNT).sqrt()) / SIZE**2 / (2 * overall)
    assert abs(sampled - overall) < 3 * error
    assert abs(overall / 0.29195 - 1) < 0.05 and abs(sampled / 0.29195 - 1) < 0.05
    ratio = COUNT * (fields**2).mean(0) / variance
    tail = stats.chi2.sf(ratio.numpy(), COUNT)
    assert (2 * np.minimum(tail, 1 - tail)).min() > 1e-3 / SIZE**2
    z = ((fields**2).mean(0).sqrt() / variance.sqrt() - 1) * np.sqrt(2 * COUNT)
    assert float((z.abs() < 3).double().mean()) > 0.98


def test_a_field_depends_on_seed_and_index_alone(fields):
    assert torch.equal(sample_neumann([5], SIZE, SEED)[0], fields[5])
    assert torch.equal(sample_neumann([7, 5, 6], SIZE, SEED)[1], fields[5])
    assert not torch.equal(sample_neumann([5], SIZE, SEED + 1)[0], fields[5])


@pytest.mark.parametrize(
    ("pde", "count", "std_a", "mean_u", "std_u"),
    [
        ("poisson", 1000, 0.29195, 9.67e-6, 0.0041748),
        ("helmholtz", 1000, 0.28445, 1.05e-5, 0.0042800),
        ("darcy", 200, 4.5, 5.692e-3, 3.790e-3),
    ],
)
def test_statistics_of_the_public_benchmark(pde, count, std_a, mean_u, std_u):
    problem = make_problem(pde, {})
    a = problem.sample_coefficients(range(count), SIZE, SEED)
    u = problem.solve(a)
    assert abs(float(a.std()) / std_a - 1) < 0.05
    assert abs(float(u.std()) / std_u - 1) < 0.05
    if pde == "darcy":
        assert abs(float(a.mean()) / 7.5 - 1) < 0.05 and abs(float(u.mean()) / mean_u - 1) < 0.05
    else:
        error = float(u.mean(dim=(1, 2)).std()) / np.sqrt(count)
        assert abs(float(u.mean()) - mean_u) < 3 * error


def test_spread_of_helmholtz_coefficients_is_that_of_p_c_p(fields):
    variance = basis("cosine", SIZE).variance(torch.from_numpy(neumann_spectrum(SIZE)))
    inside = float(variance[1:-1, 1:-1].sum()) / SIZE**2
    sampled = float((make_problem("helmholtz", {}).constrain(fields) ** 2).mean())
    error = float((2 * (torch.from_numpy(neumann_spectrum(SIZE)) ** 2).sum() / COUNT).sqrt()) / SIZE**2
    assert abs(sampled - inside) < 3 * error
