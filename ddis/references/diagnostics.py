"""Whether Markov chains agree, and how many independent draws they are worth.

Rank-normalised split R-hat, and effective sample sizes of the bulk and of the tails: Vehtari, Gelman, Simpson, Carpenter and
Bürkner, Rank-normalization, folding, and localization, Bayesian Analysis 16, 667 (2021), arXiv 1903.08008. Quantities are arrays
[chains, draws].
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]

LARGEST_R_HAT, SMALLEST_ESS = 1.01, 400.0
TAILS = (0.05, 0.95)


@dataclass(frozen=True)
class Diagnosis:
    """The worst of several quantities: R-hat, and effective sample sizes of bulk and tails."""

    r_hat: float
    ess_bulk: float
    ess_tail: float

    @property
    def converged(self) -> bool:
        """Whether R-hat is at most 1.01 and both effective sample sizes are at least 400."""
        return self.r_hat <= LARGEST_R_HAT and min(self.ess_bulk, self.ess_tail) >= SMALLEST_ESS


def diagnose(quantities: Iterable[Array]) -> Diagnosis:
    """The worst of the quantities [chains, draws each]; one that never changes is unknown: R-hat infinite, no effective draw."""
    found = [(r_hat(x), ess_bulk(x), ess_tail(x)) for x in quantities]
    worst_r, bulk, tail = np.nan_to_num(np.array(found).T, nan=np.nan, posinf=np.inf)
    return Diagnosis(
        r_hat=float(np.where(np.isnan(worst_r), np.inf, worst_r).max()),
        ess_bulk=float(np.nan_to_num(bulk, nan=0.0).min()),
        ess_tail=float(np.nan_to_num(tail, nan=0.0).min()),
    )


def r_hat(x: Array) -> float:
    """The larger R-hat of rank-normalised half chains, as they are and folded at the median; NaN for a constant."""
    halves = split(x)
    return float(np.max([_r_hat(rank_normalised(y)) for y in (halves, np.abs(halves - np.median(halves)))]))


def ess_bulk(x: Array) -> float:
    """Of the rank-normalised half chains: what estimates of the centre are worth."""
    return ess(rank_normalised(split(x)))


def ess_tail(x: Array) -> float:
    """The smaller of those of the 5 and 95 % quantiles."""
    return min(ess((split(x) <= np.quantile(x, q)).astype(float)) for q in TAILS)


def split(x: Array) -> Array:
    """Both halves of every chain as chains of their own; of an odd number of draws the middle one is left out."""
    half = x.shape[1] // 2
    return np.concatenate([x[:, :half], x[:, x.shape[1] - half :]])


def rank_normalised(x: Array) -> Array:
    """Normal scores of the ranks among all draws."""
    return np.asarray(stats.norm.ppf((stats.rankdata(x).reshape(x.shape) - 3 / 8) / (x.size + 1 / 4)))


def _r_hat(x: Array) -> float:
    draws = x.shape[1]
    within, between = x.var(axis=1, ddof=1).mean(), draws * x.mean(axis=1).var(ddof=1)
    return float(np.sqrt((between / within + draws - 1) / draws)) if within > 0 else float("nan")


def ess(x: Array) -> float:
    """M N / (1 + 2 Σ ρ_t), the sum by Geyer's initial monotone sequence; at most M N log10(M N). NaN for a constant."""
    chains, draws = x.shape
    covariance = _autocovariance(x)
    within = covariance[:, 0].mean() * draws / (draws - 1)
    total = within * (draws - 1) / draws + (x.mean(axis=1).var(ddof=1) if chains > 1 else 0.0)
    if not total > 0:
        return float("nan")
    rho = 1 - (within - covariance.mean(axis=0) * draws / (draws - 1)) / total
    rho[0] = 1.0
    pairs = rho[: draws // 2 * 2].reshape(-1, 2).sum(axis=1)
    positive = pairs[: int(np.argmin(pairs > 0)) if not (pairs > 0).all() else len(pairs)]
    time = max(-1 + 2 * float(np.minimum.accumulate(positive).sum()), 1 / np.log10(chains * draws))
    return float(chains * draws / time)


def _autocovariance(x: Array) -> Array:
    """Biased autocovariances [chains, draws] at lags 0, 1, ..."""
    draws, centred = x.shape[1], x - x.mean(axis=1, keepdims=True)
    power = np.abs(np.fft.rfft(centred, 2 * draws, axis=1)) ** 2
    return np.asarray(np.fft.irfft(power, axis=1)[:, :draws] / draws)
