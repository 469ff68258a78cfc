"""Figures of merit of posterior samples, in NumPy and float64, vectorised over fields and samples.

Shapes: n fields, K samples per field, each field [*shape] of a space; without a space it is [S, S]. Figures of several channels,
each in units of its own, are means over the channels. Nodes outside a masked domain hold 0 and change no norm. Errors are
fractions here (0.1 is 10 %); the table turns them into percent. Nothing here repairs its input: fields with a sample that is not
finite are found by `ddis.data.store.failed_fields` and left out by the caller. Calibration has a module of its own.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddis.grid import Space, square

Array = NDArray[np.float64]

_EPSILON = 1e-10


def relative_l2(estimate: ArrayLike, truth: ArrayLike, space: Space | None = None) -> Array:
    """||estimate - truth|| / ||truth||, of channels their root mean square; shapes broadcast, [..., *shape] -> [...]."""
    estimate, truth = np.asarray(estimate, np.float64), np.asarray(truth, np.float64)
    axes = 2 if space is None else len(space.grid.shape)
    ratio = _norm(estimate - truth, axes) / _norm(truth, axes)
    return ratio if space is None or space.channels == 1 else np.asarray(np.sqrt(np.square(ratio).mean(axis=-1)))


def two_values(truth: ArrayLike) -> tuple[float, float] | None:
    """The two values (low, high) of fields that take only two, such as those of Darcy's problem; None for all others."""
    truth = np.asarray(truth, np.float64)
    low, high = float(truth.min()), float(truth.max())
    return (low, high) if low < high and bool(((truth == low) | (truth == high)).all()) else None


def error_rate(estimate: ArrayLike, truth: ArrayLike, values: tuple[float, float]) -> Array:
    """Share of wrong nodes after rounding to the nearer of two `values` (low, high); [..., S, S] -> [...]."""
    middle = 0.5 * (values[0] + values[1])
    wrong = (np.asarray(estimate, np.float64) >= middle) != (np.asarray(truth, np.float64) >= middle)
    return np.asarray(wrong.mean(axis=(-2, -1)), np.float64)


def ring_wavenumbers(space: Space) -> Array:
    """Centres of the rings of `ring_power`, in cycles per node of the shortest axis."""
    half = _rings(space.grid.shape, space.grid.spacing)[1]
    return (np.arange(1, half) + 0.5) / (2 * half)


def ring_power(field: ArrayLike, space: Space | None = None) -> Array:
    """Power spectrum |FFT|^2 averaged over rings of |k|, [..., (C,) *nodes] -> [..., (C,) rings]; on a line a ring is one |k|.

    With S nodes along the shortest axis, ring edges are linspace(0, 0.5, S // 2 + 1)[1:] in cycles per node of that axis, half
    open [low, high): the mean and the corners beyond 0.5 belong to no ring. Raises ValueError for other fields and for S below 4.
    """
    field = np.asarray(field, np.float64)
    grid = square(field.shape[-1]) if space is None else space.grid
    axes = tuple(range(-len(grid.shape), 0))
    if field.ndim < len(axes) or field.shape[-len(axes) :] != grid.shape or min(grid.shape) < 4:
        expected = "[..., S, S] with S at least 4" if space is None else f"[..., {grid}]"
        raise ValueError(f"fields of shape {field.shape}: expected {expected}")
    (order, starts, counts), _ = _rings(grid.shape, grid.spacing)
    transform = np.fft.fftn(field, axes=axes)
    power = transform.real**2 + transform.imag**2
    inside = power.reshape(*field.shape[: -len(axes)], math.prod(grid.shape))[..., order]
    return np.asarray(np.add.reduceat(inside, starts, axis=-1) / counts, np.float64)


def spectral_error(estimate: ArrayLike, truth: ArrayLike, space: Space | None = None) -> Array:
    """E_s per field: geometric mean over rings (and channels) of |P_estimate - P| / (P + 1e-10); shapes broadcast."""
    power = ring_power(truth, space)
    ratio = np.abs(ring_power(estimate, space) - power) / (power + _EPSILON)
    axes = -1 if space is None or space.channels == 1 else (-2, -1)
    return np.asarray(np.exp(np.log(ratio + _EPSILON).mean(axis=axes)), np.float64)


def fine_power(estimate: ArrayLike, truth: ArrayLike, space: Space | None = None) -> Array:
    """ln (P_estimate / P), mean over the rings with |k| of at least a quarter of a cycle per node, and channels; [...].

    0: as rough as the truth; below: too smooth. Shapes broadcast, [..., *shape] -> [...].
    """
    ratio = np.log(ring_power(estimate, space) + _EPSILON) - np.log(ring_power(truth, space) + _EPSILON)
    axes = -1 if space is None or space.channels == 1 else (-2, -1)
    return np.asarray(ratio[..., ratio.shape[-1] // 2 :].mean(axis=axes), np.float64)


def misfit(solution: ArrayLike, observation: ArrayLike, mask: ArrayLike, scale: float) -> Array:
    """Root mean square of M u - y over the observed nodes, in units of `scale`.

    solution [n, K, *shape], observation and mask [n, *shape] -> [n, K]. With the standard deviation of the solutions as `scale`
    it is in the unit of the noise of the observations: samples that fit as well as they should have a misfit equal to it.
    """
    seen = np.asarray(mask, bool)
    difference = np.asarray(solution, np.float64) - np.asarray(observation, np.float64)[:, None]
    squares = np.where(seen[:, None], difference, 0.0) ** 2
    axes = tuple(range(1, seen.ndim))
    return np.asarray(
        np.sqrt(squares.sum(axis=tuple(axis + 1 for axis in axes)) / seen.sum(axis=axes)[:, None]) / scale, np.float64
    )


def standard_error(values: ArrayLike) -> float | None:
    """Standard error of the mean of independent `values` [n]; None for fewer than two."""
    values = np.asarray(values, np.float64)
    return float(values.std(ddof=1) / np.sqrt(values.size)) if values.size > 1 else None


def _norm(field: Array, axes: int) -> Array:
    """Over the last axes."""
    return np.asarray(np.sqrt(np.square(field).sum(axis=tuple(range(-axes, 0)))), np.float64)


@lru_cache(maxsize=8)
def _rings(shape: tuple[int, ...], spacing: tuple[float, ...]) -> tuple[tuple[NDArray[Any], NDArray[Any], NDArray[Any]], int]:
    """Flat indices of the modes in rings, sorted by ring; where each ring starts among them; how many modes it has; S // 2."""
    shortest = int(np.argmin(np.multiply(shape, spacing)))
    half = shape[shortest] // 2
    squared = np.zeros(shape)
    for axis, (size, step) in enumerate(zip(shape, spacing, strict=True)):
        k = np.fft.fftfreq(size) * spacing[shortest] / step
        squared = squared + np.expand_dims(k**2, [other for other in range(len(shape)) if other != axis])
    # A mode on an edge belongs to the ring above it, whatever rounding makes of it.
    ring = np.floor(2 * half * np.sqrt(squared) + 1e-9).astype(np.int64).ravel()
    inside = np.flatnonzero((ring >= 1) & (ring < half))
    order = inside[np.argsort(ring[inside], kind="stable")]
    counts = np.bincount(ring[inside], minlength=half)[1:]
    starts = np.concatenate(([0], np.cumsum(counts)[:-1])).astype(np.intp)
    return (order, starts, counts), half
