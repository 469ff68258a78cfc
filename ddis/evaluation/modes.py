"""Both modes of a posterior that has a and -a alike: how many samples each of them has. In the exact posterior, one half.

A method that finds one mode only may find either with equal chance, so that over many fields its share is one half too. What
tells it apart is whether two samples of one field lie in different modes. For K samples, k of them at the truth's sign, the
share of such pairs k (K - k) / (K (K - 1) / 2) is an unbiased estimate of 2 p (1 - p), with p the method's own share for that
field: one half at most, 0 for one mode.
"""

import numpy as np
from numpy.typing import NDArray

from ddis.evaluation.bootstrap import estimate

COLUMNS = [f"{name}{end}" for name in ("mode_share", "mode_pairs") for end in ("", "_low", "_high")]


def mode_columns(same_sign: NDArray[np.float64]) -> dict[str, float | None]:
    """`mode_share` and `mode_pairs` with their intervals over the fields, of [n, K] flags; no pairs of one sample."""
    total, count = same_sign.shape[1], same_sign.sum(axis=1)
    share = estimate(lambda mean: mean, count / total)
    pairs = estimate(lambda mean: mean, 2 * count * (total - count) / (total * (total - 1))) if total > 1 else (None,) * 3
    return dict(zip(COLUMNS, [*share, *pairs], strict=True))
