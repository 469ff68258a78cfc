"""Whether truths rank among their posterior samples as if they were samples themselves: a test at a stated level. NumPy.

In some quantity of a field, r_i of n fields is the number of the K samples below the truth. The truth of an exact posterior
cannot be told from its samples, so that r_i is uniform on 0 ... K, and independent from field to field (Talts et al., arXiv
1804.06788). With c_j the number of fields with r_i < j, binomial of n draws with probability z_j = j / (K + 1), the statistic
is

    min over j of 2 min(P(C_j <= c_j), P(C_j >= c_j))

(Säilynoja, Bürkner, Vehtari, arXiv 2103.10522), over several quantities their smallest. Its distribution comes from putting a
random one of the K + 1 in the place of the truth, field by field, all quantities at once: a permutation test, so that its level
holds for every n and K, and whatever the quantities have to do with each other. Ties are broken at random.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ddis.evaluation.bootstrap import SEED
from ddis.lazy import special

Array = NDArray[np.float64]
Counts = NDArray[np.intp]

LEVEL = 0.05
DRAWS = 2000
MOST_POINTS = 32
NARROW = 0.5  # spread of the samples, relative to what it should be, that `power` is about


@dataclass(frozen=True)
class Uniformity:
    """Of n fields with K samples each, for quantities of some components C each.

    p_values  by quantity: the probability of ranks as far from uniform, if all is well; p_value: of all together
    ranks     by quantity: of the truth among the samples [n, C], 0 to K
    shares    by quantity: share of the fields with a rank below j [C, J], of the chosen j; uniform: z [J]
    band      [2, J]: shares outside are what `p_value` below LEVEL means
    """

    p_values: dict[str, float]
    p_value: float
    ranks: dict[str, Counts]
    shares: dict[str, Array]
    uniform: Array
    band: Array


def uniformity(pools: Mapping[str, Array]) -> Uniformity:
    """The test of quantities [n, K + 1, C] of each field's truth, which is first, and its samples."""
    names, widths = list(pools), [pool.shape[2] for pool in pools.values()]
    ranks = _ranks(np.concatenate(list(pools.values()), axis=2))
    fields, members = ranks.shape[:2]
    points, random = _points(members - 1), np.random.default_rng(SEED)
    own, drawn = np.zeros((ranks.shape[2], len(points)), int), np.zeros((DRAWS, ranks.shape[2], len(points)), np.int32)
    for each in ranks:
        below = each[:, :, None] < points
        own += below[0]
        drawn += below[random.integers(members, size=DRAWS)]
    tails = _tails(fields, members - 1)
    found, null = _statistic(own, tails), _statistic(drawn, tails)
    parts = dict(zip(names, np.split(np.arange(len(found)), np.cumsum(widths)[:-1]), strict=True))
    smallest = np.sort(null.min(axis=1))
    likely = tails >= smallest[int(LEVEL * (DRAWS + 1)) - 1]  # below it p is at most LEVEL
    return Uniformity(
        p_values={name: float(_p_values(found[part].min(), null[:, part].min(axis=1))) for name, part in parts.items()},
        p_value=float(_p_values(found.min(), smallest)),
        ranks={name: ranks[:, 0, part] for name, part in parts.items()},
        shares={name: own[part] / fields for name, part in parts.items()},
        uniform=points / members,
        band=np.array([likely.argmax(axis=0), fields - likely[::-1].argmax(axis=0)]) / fields,
    )


@lru_cache(maxsize=64)
def power(fields: int, size: int) -> float:
    """With which probability samples of half the right spread would be found out.

    Of a Gaussian posterior, by four independent quantities; quantities such as a norm or a distance see it better.
    """
    random, points, tails = np.random.default_rng(SEED), _points(size), _tails(fields, size)
    shape = (DRAWS, 4, fields)
    narrow, uniform = (
        _statistic(np.stack([(ranks < point).sum(axis=-1) for point in points], axis=-1), tails).min(axis=1)
        for ranks in (
            random.binomial(size, special.ndtr(random.standard_normal(shape) / NARROW)),
            random.integers(size + 1, size=shape),
        )
    )
    return float((_p_values(narrow, uniform) <= LEVEL).mean())


def _ranks(pool: Array) -> Counts:
    """Rank of each member [n, K + 1, C] among the others of its field."""
    order = np.lexsort((np.random.default_rng(SEED).random(pool.shape), pool), axis=1)
    return order.argsort(axis=1)


def _points(size: int) -> Counts:
    """Where shares of ranks are compared: 1 ... K, of many K every few."""
    return np.unique(np.linspace(1, size, min(size, MOST_POINTS)).round().astype(int))


def _tails(fields: int, size: int) -> Array:
    """Two-sided probabilities [n + 1, J] of 0 ... n fields with a rank below each point."""
    counts, chance = np.arange(fields + 1)[:, None], _points(size) / (size + 1)
    below = special.bdtr(counts, fields, chance)
    above = np.concatenate([np.ones((1, len(chance))), special.bdtrc(counts[:-1], fields, chance)])
    return np.asarray(2 * np.minimum(below, above))


def _statistic(counts: NDArray[np.integer], tails: Array) -> Array:
    """[...] of counts [..., J]."""
    return np.asarray(tails[counts, np.arange(tails.shape[1])].min(axis=-1))


def _p_values(found: Array, null: Array) -> Array:
    """Of statistics, against those of uniform ranks."""
    return np.asarray((1 + np.searchsorted(np.sort(null), found, side="right")) / (len(null) + 1))
