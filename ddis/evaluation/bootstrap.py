"""Bootstrap over test fields: how far a figure of merit would move with other fields of the same kind."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddis.lazy import special, stats

SEED, DRAWS, LEVEL = 0, 5000, 0.95
HOW = f"{100 * LEVEL:g} % expanded percentile interval of a bootstrap over the test fields, {DRAWS} draws, seed {SEED}"

ENOUGH = 24
"""Fields from which on 95 % intervals by BCa hold the truth in 0.93 of all cases; of 16 fields in 0.90, of 8 in 0.82, where those
by expanded percentiles hold it in 0.94 and 0.92 (benchmarks/results/intervals.md)."""

Estimate = tuple[float, float | None, float | None]
"""Value, lower and upper end of its interval; no ends where they cannot be known."""


def estimate(function: Callable[..., Any], *values: ArrayLike) -> Estimate:
    """`function` of the means over the fields of each of the `values` [n], and its interval under resampling of the fields.

    Values of the same number of fields are resampled together: where entry i of all belongs to field i, the comparison is
    paired. `function` must work on arrays as on numbers. No interval is given for fewer than two fields. Percentiles of n fields
    are too narrow, by (1 - 1/n)^½ and by normal quantiles in place of Student's: they are taken further out by both (Hesterberg,
    What Teachers Should Know About the Bootstrap, The American Statistician 69, 2015: expanded percentiles).
    """
    arrays = [np.asarray(value, np.float64) for value in values]
    value = float(function(*(array.mean() for array in arrays)))
    n = min(array.size for array in arrays)
    if n < 2:
        return value, None, None
    draws = function(*(_weights(array.size) @ array for array in arrays))
    tail = special.ndtr(special.stdtrit(n - 1, 0.5 - LEVEL / 2) * (n / (n - 1)) ** 0.5)
    low, high = np.quantile(draws, [tail, 1 - tail])
    return value, float(low), float(high)


def bca(function: Callable[..., Any], *values: ArrayLike) -> Estimate:
    """As `estimate`, with the interval that is corrected for bias and skewness, BCa, of at least ENOUGH fields; where there are
    fewer, or values of another number of fields, or nothing varies, with that of `estimate`.

    Source: Efron, Better Bootstrap Confidence Intervals, JASA 82, 1987.
    """
    arrays = [np.asarray(value, np.float64) for value in values]
    value, low, high = estimate(function, *arrays)
    sizes = {array.size for array in arrays}
    if low == high or len(sizes) > 1 or min(sizes) < ENOUGH:
        return value, low, high
    with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
        found = stats.bootstrap(
            arrays,
            lambda *drawn, axis=-1: function(*(array.mean(axis=axis) for array in drawn)),
            paired=True,
            n_resamples=DRAWS,
            confidence_level=LEVEL,
            rng=np.random.default_rng(SEED),
        ).confidence_interval
    ends = float(found.low), float(found.high)
    return (value, *ends) if np.isfinite(ends).all() else (value, low, high)


@lru_cache(maxsize=4)
def _weights(count: int) -> NDArray[np.float64]:
    """Weights [DRAWS, count] of the fields in each draw."""
    drawn = np.random.default_rng(SEED).multinomial(count, np.full(count, 1 / count), size=DRAWS)
    return np.asarray(drawn / count, np.float64)
