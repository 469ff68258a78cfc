"""Expected coverage of credible regions of whole fields: tests of accuracy with random points, TARP (Lemos et al., ICML 2023,
arXiv 2302.03026, algorithm 2). NumPy, float64.

Of each field a reference point r, whatever its distribution as long as it knows nothing of the truth a. The region of
credibility c is the ball about r that holds this share of the posterior's samples. It covers the truth with probability c: with
r_i the number of the K samples that are nearer to the reference than the truth is,

    expected coverage of c    mean over the fields of min(1, max(0, c (K + 1) - r_i))

which for ranks r_i that are uniform on 0 ... K is c on average, also between multiples of 1 / (K + 1).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ddis.evaluation.bootstrap import LEVEL, SEED, Estimate
from ddis.lazy import special

Array = NDArray[np.float64]


def distances(pool: Array) -> Array:
    """Of each field's truth and samples [n, K + 1, C, nodes] to the reference of that field, [n, K + 1]; n is 2 or more.

    The reference of a field is one of the K + 1 of the next field, by chance: each is a draw from the prior, of another field,
    and putting another of the K + 1 in the place of the truth changes no reference. Channels are in units of their standard
    deviation.
    """
    fields, members, channels, _ = pool.shape
    chosen = np.random.default_rng(SEED).integers(members, size=fields)
    reference = np.roll(pool[np.arange(fields), chosen], -1, axis=0)
    units = np.moveaxis(pool, 2, 0).reshape(channels, -1).std(axis=1)
    squares = np.square(pool - reference[:, None]).sum(axis=3) / np.where(units > 0, units, 1) ** 2
    return np.asarray(np.sqrt(squares.sum(axis=2)))


def expected_coverage(ranks: NDArray[np.intp], size: int, credibility: float) -> Estimate:
    """With its interval (Wilson's for a share): the terms of the mean lie between 0 and 1, so that it errs to the wide side.

    ranks [n] of the truth's distance among those of its K samples, 0 to K = size.
    """
    value = float(np.clip(credibility * (size + 1) - ranks, 0, 1).mean())
    count, z = len(ranks), float(special.ndtri(0.5 + LEVEL / 2))
    middle = (value + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * np.sqrt(value * (1 - value) / count + z**2 / (4 * count**2))
    return value, float(max(0.0, middle - half)), float(min(1.0, middle + half))
