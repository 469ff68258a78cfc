"""Figures of merit of posterior samples, in NumPy and float64, vectorised over fields and samples.

Shapes: n fields, K samples per field, S nodes per side. Errors are fractions here (0.1 is 10 %); the table turns them into
percent. Nothing here repairs its input: fields with a sample that is not finite are found by `ddis.data.store.failed_fields` and
left out by the caller. Calibration has a module of its own.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

_EPSILON = 1e-10


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
    inside = power.reshape(*field.shape[:-2], field.shape[-1] ** 2)[..., order]
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


def standard_error(values: ArrayLike) -> float | None:
    """Standard error of the mean of independent `values` [n]; None for fewer than two."""
    values = np.asarray(values, np.float64)
    return float(values.std(ddof=1) / np.sqrt(values.size)) if values.size > 1 else None


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
