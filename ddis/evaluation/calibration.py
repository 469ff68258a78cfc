"""Calibration: whether the spread of posterior samples tells the error that is made. NumPy, float64.

At a node with samples x_1 ... x_K, of mean m and standard deviation s, and truth x:

    coverage of p    |x - m| <= s (1 + 1/K)^½ t, with t the quantile (1 + p) / 2 of Student's distribution, K - 1 degrees
    CRPS             (1/K) Σ_k |x_k - x| - 1/(K (K - 1)) Σ_{k<l} |x_k - x_l|
    spread / skill   ((1 + 1/K) <s²> / <(m - x)²>)^½, with < > the mean over nodes and fields
    rank             number of samples below x

for n fields of any shape, averaged over nodes, then over fields. Nodes with one and the same value in every truth and every
sample, such as a boundary fixed by the problem, are left out: they would count as covered. Nodes of one field are correlated and
fields are not, so intervals and tests resample fields.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddis.evaluation.bootstrap import DRAWS, LEVEL, SEED
from ddis.lazy import special

Array = NDArray[np.float64]

MIN_SAMPLES = 4
"""Below this number of samples per field, calibration is not estimated."""


@dataclass(frozen=True)
class Calibration:
    """Of every field in the arrays, of all fields together in the properties.

    covered50, covered90: [n], share of covered nodes; a new draw of a Gaussian is covered with that probability for every K.
    scores: [n], CRPS (the fair continuous ranked probability score), in units of the coefficient; smaller is better.
    variance, squared_error: [n], (1 + 1/K) s² and (m - x)²: the same on average if calibrated.
    ranks: [n, K + 1], number of nodes at each rank of the truth among the samples: the same on average if calibrated.
    """

    covered50: Array
    covered90: Array
    scores: Array
    variance: Array
    squared_error: Array
    ranks: NDArray[np.int64]

    @property
    def coverage50(self) -> float:
        """0.5 for an exact posterior."""
        return float(self.covered50.mean())

    @property
    def coverage90(self) -> float:
        """0.9 for an exact posterior."""
        return float(self.covered90.mean())

    @property
    def crps(self) -> float:
        """In units of the coefficient; smaller is better."""
        return float(self.scores.mean())

    @property
    def spread_skill(self) -> float | None:
        """Spread of the samples over the error of their mean; 1 for an exact posterior, overconfidence is below."""
        skill = self.squared_error.mean()
        return float(np.sqrt(self.variance.mean() / skill)) if skill > 0 else None


def calibration(samples: ArrayLike, truth: ArrayLike) -> Calibration | None:
    """Calibration of samples [n, K, *shape] against truth [n, *shape]; None when K is below 4 or every node is known."""
    samples, truth = np.asarray(samples, np.float64), np.asarray(truth, np.float64)
    nodes = estimated_nodes(samples, truth)
    if samples.shape[1] < MIN_SAMPLES or not nodes.any():
        return None
    size, fields = samples.shape[1], [(members[:, nodes], target[nodes]) for members, target in zip(samples, truth, strict=True)]
    covered = np.array([_coverage(*field, (0.5, 0.9)) for field in fields])
    return Calibration(
        covered50=covered[:, 0],
        covered90=covered[:, 1],
        scores=np.array([_crps(*field) for field in fields]),
        variance=np.array([(size + 1) / size * members.var(axis=0, ddof=1).mean() for members, _ in fields]),
        squared_error=np.array([np.square(members.mean(axis=0) - target).mean() for members, target in fields]),
        ranks=np.array([_ranks(*field) for field in fields]),
    )


def rank_band(samples: ArrayLike, truth: ArrayLike) -> Array:
    """Between which frequencies, relative to uniform, each rank of a calibrated ensemble would lie, [2, K + 1].

    A calibrated truth cannot be told from its samples, so any of the K + 1 may take its place. Doing so at random, field by field
    with all nodes at once, keeps the correlations within fields and gives the histograms that would be as likely: the band holds
    95 % of them, rank by rank (a permutation test). samples [n, K, *shape] with K of at least 4, truth [n, *shape].
    """
    samples, truth = np.asarray(samples, np.float64), np.asarray(truth, np.float64)
    nodes = estimated_nodes(samples, truth)
    size, random = samples.shape[1], np.random.default_rng(SEED)
    counts = np.zeros((DRAWS, size + 1))
    for members, target in zip(samples, truth, strict=True):
        pool = np.concatenate([members[:, nodes], target[None, nodes]])
        ranks = np.array([_ranks(np.delete(pool, place, axis=0), pool[place]) for place in range(size + 1)])
        counts += ranks[random.integers(size + 1, size=DRAWS)]
    share = counts / counts.mean(axis=1, keepdims=True)
    return np.asarray(np.quantile(share, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2], axis=0), np.float64)


def estimated_nodes(samples: Array, truth: Array) -> NDArray[np.bool_]:
    """Nodes [*shape] that are not known beforehand."""
    lowest = np.minimum(samples.min(axis=(0, 1)), truth.min(axis=0))
    highest = np.maximum(samples.max(axis=(0, 1)), truth.max(axis=0))
    return np.asarray(highest > lowest)


def half_width(samples: Array, level: float) -> Array:
    """Of the interval of a level, [..., nodes] of samples [..., K, nodes]."""
    size = samples.shape[-2]
    radius = samples.std(axis=-2, ddof=1) * np.sqrt(1 + 1 / size)
    return np.asarray(special.stdtrit(size - 1, 0.5 * (1 + level)) * radius)


def _coverage(members: Array, target: Array, levels: tuple[float, ...]) -> list[float]:
    distance = np.abs(target - members.mean(axis=0))
    return [float((distance <= half_width(members, level)).mean()) for level in levels]


def _crps(members: Array, target: Array) -> float:
    size = len(members)
    # Sum over pairs of |x_i - x_j| from the sorted samples, in K instead of K^2 terms.
    weights = 2.0 * np.arange(size) - size + 1
    pairs = (weights[:, None] * np.sort(members, axis=0)).sum(axis=0)
    return float((np.abs(members - target).mean(axis=0) - pairs / (size * (size - 1))).mean())


def _ranks(members: Array, target: Array) -> NDArray[np.int64]:
    below = (members < target).sum(axis=0)
    ties = (members == target).sum(axis=0)
    # Ties are shared out over the ranks they could take by the position of the node: even, and the same on every run.
    rank = below + np.arange(target.size) % (ties + 1)
    return np.bincount(rank, minlength=len(members) + 1).astype(np.int64)
