"""Five distances between samples and a weighted reference sample of the same posterior, as PosteriorBench defines them.

Samples have equal weights. Source: arXiv 2609.20794; NumPy, float64. Two sets of samples of one posterior are not at distance 0:
what independent draws of the reference itself reach is the floor that a method is compared with.

The benchmark's fields are of one channel on S x S nodes. On other spaces directions are drawn on the space's own grid, with its
periodic axes, and rings are those of `ddis.evaluation.metrics.ring_power`, which leave out the mean. Of several channels `mean`
and `std` are root mean squares over the channels; `mmd` and `swd` are of all channels together, each in its unit. Nodes outside
a masked domain hold 0, in all samples alike: they change neither `mean`, `std` nor `mmd`. `swd` and `spectrum` are those of the
padded fields, on the directions and rings of the whole grid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddis.evaluation.metrics import ring_power
from ddis.fields.gaussian import neumann_spectrum, sample_gaussian, sample_neumann
from ddis.grid import Space, square
from ddis.lazy import distance

Array = NDArray[np.float64]

BANDWIDTHS = (0.2, 0.5, 1.0, 2.0, 5.0)
DIRECTIONS = 128
DIRECTION_SEED = 0
TINY = 1e-10  # power of a ring without any


@dataclass(frozen=True)
class Distances:
    """mean, std      relative l2 error of the point-wise mean and of the point-wise standard deviation
    mmd            maximum mean discrepancy, a mixture of Gaussian kernels
    swd            sliced Wasserstein distance of z-scored fields along random fields
    spectrum       geometric mean over wavenumbers of the relative error of the mean power spectrum
    """

    mean: float
    std: float
    mmd: float
    swd: float
    spectrum: float


def distances(
    samples: ArrayLike,
    reference: ArrayLike,
    weights: ArrayLike | None = None,
    scale: ArrayLike = 1.0,
    space: Space | None = None,
) -> Distances:
    """Of samples [K, *shape] to a reference [L, *shape].

    Args:
        weights: of the reference [L], of any sum; None: equal.
        scale: standard deviation of the coefficient over the training split, the unit of `swd`; of each of several channels [C].
            Its mean does not matter.
        space: of the fields; None: one channel on S x S nodes.
    """
    x, y = np.asarray(samples, np.float64), np.asarray(reference, np.float64)
    space = space or Space(square(x.shape[-1]))
    if x.shape[1:] != space.shape or y.shape[1:] != space.shape or not (len(x) and len(y)):
        expected = ", ".join(map(str, space.shape))
        raise ValueError(
            f"samples of shape {x.shape}, reference of shape {y.shape}: expected [K, {expected}] and [L, {expected}]"
        )
    unit = np.broadcast_to(np.asarray(scale, np.float64), space.channels).reshape(-1, *(1,) * len(space.grid.shape))
    scored = x / unit, y / unit
    together = (x, y) if space.channels == 1 else scored
    v = np.full(len(x), 1 / len(x))
    w = np.full(len(y), 1 / len(y)) if weights is None else np.asarray(weights, np.float64) / np.sum(weights)
    (mean, std), (mean_ref, std_ref) = _moments(x, v), _moments(y, w)
    return Distances(
        mean=_relative(mean, mean_ref, space.channels),
        std=_relative(std, std_ref, space.channels),
        mmd=maximum_mean_discrepancy(*together, w),
        swd=slicedwasserstein(*scored, w, space),
        spectrum=_spectrum_error(*together, w, space),
    )


def _of_benchmark(space: Space) -> bool:
    """One channel on S x S nodes."""
    return len(space.shape) == 2 and space.channels == 1 and len(set(space.shape)) == 1


def maximum_mean_discrepancy(x: Array, y: Array, weights: Array) -> float:
    """Root of the V-statistic with the kernel (1/5) Σ_s exp(-d² / (s h)), h the median squared distance from x to y."""
    points = np.concatenate([x.reshape(len(x), -1), y.reshape(len(y), -1)])
    squared = distance.cdist(points, points, "sqeuclidean")
    width = float(np.median(squared[: len(x), len(x) :]))
    kernel = sum(np.exp(-squared / (s * width)) for s in BANDWIDTHS) / len(BANDWIDTHS)
    signed = np.concatenate([np.full(len(x), 1 / len(x)), -weights])
    return float(np.sqrt(max(0.0, signed @ kernel @ signed)))


def slicedwasserstein(x: Array, y: Array, weights: Array, space: Space) -> float:
    """Mean over directions of the 1-D Wasserstein distance; directions are Gaussian fields (α = 2, τ = 3) of norm 1."""
    along = directions(space).reshape(DIRECTIONS, -1)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    pairs = zip(x.reshape(len(x), -1).dot(along.T).T, y.reshape(len(y), -1).dot(along.T).T, strict=True)
    return float(np.mean([wasserstein(a, b, weights) for a, b in pairs]))


def directions(space: Space) -> Array:
    """Gaussian fields [DIRECTIONS, *shape] of any norm."""
    if _of_benchmark(space):
        return np.asarray(sample_neumann(range(DIRECTIONS), space.shape[-1], DIRECTION_SEED).numpy())
    spectrum = np.broadcast_to(neumann_spectrum(space.grid), space.shape)
    return np.asarray(sample_gaussian(range(DIRECTIONS), space.grid, spectrum, DIRECTION_SEED).numpy())


def wasserstein(a: Array, b: Array, weights: Array) -> float:
    """∫ |F_a - F_b| of equal-weight values a and weighted values b."""
    order = np.argsort(b)
    values = np.concatenate([a, b])
    steps = np.sort(values)
    below_a = np.searchsorted(np.sort(a), steps[:-1], side="right") / len(a)
    cumulated = np.concatenate([[0.0], np.cumsum(weights[order])])
    below_b = cumulated[np.searchsorted(b[order], steps[:-1], side="right")]
    return float(np.abs(below_a - below_b) @ np.diff(steps))


def radial_power(fields: Array) -> Array:
    """|FFT2|² [N, S, S] averaged over the rings i ≤ |k| < i + 1 cycles per side, up to half a cycle per node: [N, S / 2]."""
    size = fields.shape[-1]
    k = np.fft.fftfreq(size, 1 / size)
    ring = np.hypot(k[:, None], k).astype(int).ravel()
    power = np.abs(np.fft.fft2(fields)).reshape(len(fields), -1) ** 2
    counts = np.bincount(ring)
    return np.stack([np.bincount(ring, weights=row) / counts for row in power])[:, : (size + 1) // 2]


def _spectrum_error(x: Array, y: Array, weights: Array, space: Space) -> float:
    found, wanted = (radial_power(f) if _of_benchmark(space) else ring_power(f, space).reshape(len(f), -1) for f in (x, y))
    power, expected = found.mean(axis=0), weights @ wanted
    relative = np.abs(power - expected) / (expected + TINY)
    return float(np.exp(np.log(relative[expected > TINY] + TINY).mean()))


def _moments(fields: Array, weights: Array) -> tuple[Array, Array]:
    mean = np.tensordot(weights, fields, 1)
    return mean, np.sqrt(np.tensordot(weights, (fields - mean) ** 2, 1))


def _relative(estimate: Array, truth: Array, channels: int) -> float:
    """||estimate - truth|| / ||truth||, of channels their root mean square."""
    if channels == 1:
        return float(np.linalg.norm(estimate - truth) / np.linalg.norm(truth))
    return math.sqrt(np.mean([_relative(*pair, 1) ** 2 for pair in zip(estimate, truth, strict=True)]))


def average(parts: Sequence[Distances]) -> Distances:
    """Mean over fields."""
    return Distances(*(float(np.mean([getattr(part, name) for part in parts])) for name in Distances.__dataclass_fields__))
