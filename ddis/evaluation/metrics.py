"""Figures of merit of posterior samples, in NumPy and float64, vectorised over fields and samples.

Shapes: n fields, K samples per field, S nodes per side. Errors are fractions here (0.1 is 10 %); the table turns them into
percent. Nothing here repairs its input: fields with a sample that is not finite are found by `failed_fields` and left out
by the caller.

Calibration (coverage, CRPS, spread/skill, ranks) is per node, pooled over nodes and fields. A node that holds one and the
same value in every truth and every sample (a boundary fixed by the problem) is known, not estimated: it would count as
covered for free, so it is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Array = NDArray[np.float64]

MIN_CALIBRATION_SAMPLES = 4
"""Below this number of samples per field, calibration is not estimated."""

_EPSILON = 1e-10


@dataclass(frozen=True)
class Calibration:
    """How well the spread of the samples tells the error that is made.

    coverage50, coverage90: share of nodes inside the central 50 and 90 % interval; an exact posterior has 0.5 and 0.9.
    crps: fair continuous ranked probability score, in units of the coefficient; smaller is better.
    spread_skill: spread of the samples over the error of their mean; an exact posterior has 1, overconfidence is below.
    ranks: [K + 1], counts of the rank of the truth among the samples; an exact posterior has equal counts.
    """

    coverage50: float
    coverage90: float
    crps: float
    spread_skill: float | None
    ranks: NDArray[np.int64]


def relative_l2(estimate: ArrayLike, truth: ArrayLike) -> Array:
    """||estimate - truth|| / ||truth|| over the last two axes; shapes broadcast, [..., S, S] -> [...]."""
    estimate, truth = np.asarray(estimate, np.float64), np.asarray(truth, np.float64)
    return _norm(estimate - truth) / _norm(truth)


def two_values(truth: ArrayLike) -> tuple[float, float] | None:
    """The two values (low, high) of fields that take only two, such as those of Darcy's problem; None for all others."""
    values = np.unique(np.asarray(truth, np.float64))
    return (float(values[0]), float(values[1])) if values.size == 2 else None


def error_rate(estimate: ArrayLike, truth: ArrayLike, values: tuple[float, float]) -> Array:
    """Share of wrong nodes after rounding to the nearer of two `values` (low, high); [..., S, S] -> [...]."""
    middle = 0.5 * (values[0] + values[1])
    wrong = (np.asarray(estimate, np.float64) >= middle) != (np.asarray(truth, np.float64) >= middle)
    return np.asarray(wrong.mean(axis=(-2, -1)), np.float64)


def ring_wavenumbers(resolution: int) -> Array:
    """Centres of the rings of `ring_power`, in cycles per pixel, [S // 2 - 1]."""
    half = resolution // 2
    return (np.arange(1, half) + 0.5) / (2 * half)


def ring_power(field: ArrayLike) -> Array:
    """Power spectrum |FFT2|^2 averaged over rings of |k|, [..., S, S] -> [..., S // 2 - 1].

    Ring edges are linspace(0, 0.5, S // 2 + 1)[1:] in cycles per pixel, half open [low, high): the mean and the corners
    beyond 0.5 belong to no ring. Raises ValueError if the fields are not square or S is below 4.
    """
    field = np.asarray(field, np.float64)
    if field.ndim < 2 or field.shape[-1] != field.shape[-2] or field.shape[-1] < 4:
        raise ValueError(f"fields of shape {field.shape}: expected [..., S, S] with S at least 4")
    order, starts, counts = _rings(field.shape[-1])
    transform = np.fft.fft2(field)
    power = transform.real**2 + transform.imag**2
    inside = power.reshape(*field.shape[:-2], -1)[..., order]
    return np.asarray(np.add.reduceat(inside, starts, axis=-1) / counts, np.float64)


def spectral_error(estimate: ArrayLike, truth: ArrayLike) -> Array:
    """E_s per field: geometric mean over rings of |P_estimate - P| / (P + 1e-10); shapes broadcast, [..., S, S] -> [...]."""
    power = ring_power(truth)
    ratio = np.abs(ring_power(estimate) - power) / (power + _EPSILON)
    return np.asarray(np.exp(np.log(ratio + _EPSILON).mean(axis=-1)), np.float64)


def misfit(solution: ArrayLike, observation: ArrayLike, mask: ArrayLike, scale: float) -> Array:
    """Root mean square of M u - y over the observed nodes, in units of `scale`.

    solution [n, K, S, S], observation and mask [n, S, S] -> [n, K]. With the standard deviation of the solutions as `scale`
    it is in the unit of the noise of the observations: samples that fit as well as they should have a misfit equal to it.
    """
    seen = np.asarray(mask, bool)
    difference = np.asarray(solution, np.float64) - np.asarray(observation, np.float64)[:, None]
    squares = np.where(seen[:, None], difference, 0.0) ** 2
    return np.asarray(np.sqrt(squares.sum(axis=(-2, -1)) / seen.sum(axis=(-2, -1))[:, None]) / scale, np.float64)


def failed_fields(*arrays: ArrayLike) -> NDArray[np.bool_]:
    """Fields for which any value of any array [n, ...] is not finite, [n]."""
    finite = [np.isfinite(array).reshape(len(array), -1).all(axis=1) for array in map(np.asarray, arrays)]
    return ~np.logical_and.reduce(finite)


def standard_error(values: ArrayLike) -> float | None:
    """Standard error of the mean of independent `values` [n]; None for fewer than two."""
    values = np.asarray(values, np.float64)
    return float(values.std(ddof=1) / np.sqrt(values.size)) if values.size > 1 else None


def calibration(samples: ArrayLike, truth: ArrayLike) -> Calibration | None:
    """Calibration of samples [n, K, S, S] against truth [n, S, S]; None when K is below 4 or every node is known."""
    samples, truth = np.asarray(samples, np.float64), np.asarray(truth, np.float64)
    if samples.shape[1] < MIN_CALIBRATION_SAMPLES:
        return None
    members, target = _estimated_nodes(samples, truth)
    if target.size == 0:
        return None
    half, nine_tenths = _coverage(members, target, (0.5, 0.9))
    return Calibration(half, nine_tenths, _crps(members, target), _spread_skill(members, target), _ranks(members, target))


def coverage(samples: ArrayLike, truth: ArrayLike, levels: Sequence[float]) -> Array:
    """Share of nodes whose truth lies in the central interval of each level, [len(levels)].

    The interval is mean +- t_{K-1} sd sqrt(1 + 1/K), which a new draw of the same Gaussian hits with exactly that
    probability, however small K is. samples [n, K, S, S], truth [n, S, S]. Raises ValueError when K is below 4.
    """
    samples, truth = np.asarray(samples, np.float64), np.asarray(truth, np.float64)
    if samples.shape[1] < MIN_CALIBRATION_SAMPLES:
        raise ValueError(f"{samples.shape[1]} samples per field: coverage needs at least {MIN_CALIBRATION_SAMPLES}")
    return _coverage(*_estimated_nodes(samples, truth), levels)


def _norm(field: Array) -> Array:
    return np.asarray(np.sqrt(np.square(field).sum(axis=(-2, -1))), np.float64)


@lru_cache(maxsize=8)
def _rings(resolution: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Flat indices of the modes in rings, sorted by ring; where each ring starts among them; how many modes it has."""
    half = resolution // 2
    k = np.rint(np.fft.fftfreq(resolution) * resolution).astype(np.int64)
    # Integers decide which ring a mode on an edge belongs to: floor(2 half |k| / S) without rounding.
    ring = np.floor(np.sqrt((k[:, None] ** 2 + k**2) * (2 * half) ** 2 // resolution**2)).astype(np.int64).ravel()
    inside = np.flatnonzero((ring >= 1) & (ring < half))
    order = inside[np.argsort(ring[inside], kind="stable")]
    counts = np.bincount(ring[inside], minlength=half)[1:]
    starts = np.concatenate(([0], np.cumsum(counts)[:-1])).astype(np.intp)
    return order, starts, counts


def _estimated_nodes(samples: Array, truth: Array) -> tuple[Array, Array]:
    """Samples [K, p] and truth [p] at the nodes that are not known beforehand, pooled over fields."""
    lowest = np.minimum(samples.min(axis=(0, 1)), truth.min(axis=0))
    highest = np.maximum(samples.max(axis=(0, 1)), truth.max(axis=0))
    unknown = highest > lowest
    return np.moveaxis(samples, 1, 0)[:, :, unknown].reshape(samples.shape[1], -1), truth[:, unknown].ravel()


def _coverage(members: Array, target: Array, levels: Sequence[float]) -> Array:
    size = len(members)
    radius = members.std(axis=0, ddof=1) * np.sqrt(1 + 1 / size)
    distance = np.abs(target - members.mean(axis=0))
    factors = [stats.t.ppf(0.5 * (1 + level), size - 1) for level in levels]
    return np.array([(distance <= factor * radius).mean() for factor in factors])


def _crps(members: Array, target: Array) -> float:
    size = len(members)
    # Sum over pairs of |x_i - x_j| from the sorted samples, in K instead of K^2 terms.
    weights = 2.0 * np.arange(size) - size + 1
    pairs = (weights[:, None] * np.sort(members, axis=0)).sum(axis=0)
    return float((np.abs(members - target).mean(axis=0) - pairs / (size * (size - 1))).mean())


def _spread_skill(members: Array, target: Array) -> float | None:
    size = len(members)
    spread = np.sqrt((size + 1) / size * members.var(axis=0, ddof=1).mean())
    skill = np.sqrt(np.square(members.mean(axis=0) - target).mean())
    return float(spread / skill) if skill > 0 else None


def _ranks(members: Array, target: Array) -> NDArray[np.int64]:
    below = (members < target).sum(axis=0)
    ties = (members == target).sum(axis=0)
    # Ties are shared out over the ranks they could take by the position of the node: even, and the same on every run.
    rank = below + np.arange(target.size) % (ties + 1)
    return np.bincount(rank, minlength=len(members) + 1).astype(np.int64)
