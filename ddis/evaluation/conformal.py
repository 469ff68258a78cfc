"""The factor by which half widths of intervals are multiplied for a guarantee: split-conformal prediction (Papadopoulos et al.,
ECML 2002; Angelopoulos and Bates, arXiv 2107.07511). NumPy, float64.

At each node of a field the samples give a mean and the half width h of a 90 % interval (see `ddis.evaluation.calibration`). The
score of a held-out field is the smallest factor with which the intervals hold the truth at 90 % of its nodes:

    s = the smallest q with |truth - mean| <= q h at SHARE of the nodes
    q = the ⌈(n + 1)(1 - α)⌉-th smallest of the scores of n fields, with 1 - α = CONFIDENCE

If one more field is exchangeable with these n, field, observations and samples drawn in the same way, then with probability 1 -
α at least, and at most 1 - α + 1 / (n + 1), intervals that are q times as wide hold the truth at SHARE of its nodes or more.
That is over fields and samples at once, for every n, whatever prior, operator and sampler are. It is not what single nodes are
covered with, and nothing for one particular field, or for other sensors, noise or numbers of samples.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddis.evaluation.calibration import estimated_nodes, half_width

Array = NDArray[np.float64]

SHARE, CONFIDENCE = 0.9, 0.9
FEWEST = math.ceil(CONFIDENCE / (1 - CONFIDENCE) - 1e-9)


def scores(samples: ArrayLike, truth: ArrayLike) -> Array:
    """[n] of samples [n, K, *shape], K of 4 or more, and truths [n, *shape]; infinite where too many nodes have no spread."""
    samples, truth = np.asarray(samples, np.float64), np.asarray(truth, np.float64)
    nodes = estimated_nodes(samples, truth)
    if not nodes.any():
        return np.zeros(len(truth))
    distance = np.abs(truth - samples.mean(axis=1))[:, nodes]
    width = half_width(samples[:, :, nodes], SHARE)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(distance > 0, distance / width, 0.0)
    rank = math.ceil(SHARE * ratio.shape[1] - 1e-9)
    return np.asarray(np.partition(ratio, rank - 1, axis=1)[:, rank - 1])


def factor(scores: ArrayLike) -> float | None:
    """q of the scores [n] of held-out fields; None below FEWEST of them, where none is large enough, or if it is infinite."""
    ordered = np.sort(np.asarray(scores, np.float64))
    rank = math.ceil((len(ordered) + 1) * CONFIDENCE - 1e-9)
    if rank > len(ordered) or not np.isfinite(ordered[rank - 1]):
        return None
    return float(ordered[rank - 1])
