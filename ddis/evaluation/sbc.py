"""Simulation-based calibration of a file of samples: quantities of the truth and of its samples, whose ranks should be uniform.

    mean        over the nodes
    mode 1, 2   of the first mode along each axis (on a line of the first two): cosine, or Fourier where it is periodic
    point       the value at the node in the middle
    energy      sum of squares over the nodes
    misfit      root mean square of predicted minus observed values, each in units of its noise: of Gaussian noise, minus the
                logarithm of the likelihood
    distance    to a reference point, see `ddis.evaluation.tarp`

The misfit depends on the data, and sees what the others cannot: samples of the prior are calibrated in all of them (Modrák et
al., arXiv 2211.02383). Observations without noise the truth fits best by construction: they are left out of the misfit, and if
there are no others there is none. A quantity that the problem fixes, such as a mean of 0, is left out too: it says nothing of a
posterior, and ranks would tell a network that misses it by a thousandth.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ddis.data.store import Samples
from ddis.evaluation import tarp
from ddis.evaluation.bootstrap import Estimate
from ddis.evaluation.calibration import MIN_SAMPLES
from ddis.evaluation.misfits import in_noise
from ddis.evaluation.uniformity import LEVEL, Uniformity, power, uniformity
from ddis.fields.bases import cosine_matrix, fourier_matrix
from ddis.grid import Grid

Array = NDArray[np.float64]

QUANTITIES = ("mean", "mode 1", "mode 2", "point", "energy", "misfit", "distance")
ENOUGH = 0.8
FIXED = 1e-4  # spread of a quantity among the truths, in standard deviations of the field, that is no more than rounding
FAULT, MISFIT, SOUND, FEW = "fault found", "fault in the misfit", "no fault found", "too few fields"


@dataclass(frozen=True)
class Verdict:
    """Of n fields with K samples each.

    test: of QUANTITIES, misfit aside where there is none; p_fields: of all but the misfit; power: see `uniformity.power`.
    """

    fields: int
    size: int
    test: Uniformity
    p_fields: float
    power: float

    @property
    def word(self) -> str:
        """That no fault is found is said only where samples of half the right spread would be found out with probability 0.8.

        A fault in the misfit alone: the samples do not fit the observations as the truth does, through a network that errs say,
        and as draws of the field nothing is wrong with them.
        """
        if self.test.p_value > LEVEL:
            return SOUND if self.power >= ENOUGH else FEW
        return FAULT if self.p_fields <= LEVEL else MISFIT

    @property
    def worst(self) -> str:
        """The quantity whose ranks are least like uniform ones."""
        return min(self.test.p_values, key=lambda name: self.test.p_values[name])

    def coverage(self, credibility: float) -> Estimate:
        """Expected coverage of regions of this credibility."""
        return tarp.expected_coverage(self.test.ranks["distance"][:, 0], self.size, credibility)


def verdict(samples: Samples) -> Verdict | None:
    """Of the fields that did not fail; None below 4 samples or 2 fields."""
    fields, size = int((~samples.failed).sum()), samples.coefficient.shape[1]
    if fields < 2 or size < MIN_SAMPLES:
        return None
    pools = quantities(samples)
    test = uniformity(pools)
    other = uniformity({name: pool for name, pool in pools.items() if name != "misfit"}) if "misfit" in pools else test
    return Verdict(fields, size, test, other.p_value, power(fields, size))


def quantities(samples: Samples) -> dict[str, Array]:
    """By name: of each truth and its samples [n, K + 1, C], the truth first; C is the number of channels, or 1.

    Of the n fields that did not fail: units and reference points are of several fields.
    """
    grid, kept = samples.spaces[0].grid, ~samples.failed
    pool = np.concatenate([samples.coefficient_true[:, None], samples.coefficient], axis=1)
    flat = pool[kept].reshape(kept.sum(), pool.shape[1], -1, int(np.prod(grid.shape))).astype(np.float64)
    unit = flat.std(axis=(0, 1, 3)) + np.finfo(float).tiny
    found = {"mean": flat[..., grid.nodes.ravel()].mean(axis=3)}
    found |= {f"mode {number}": flat @ weights for number, weights in enumerate(_modes(grid), 1)}
    found |= {"point": flat[..., _middle(grid)]}
    found = {name: values / unit for name, values in found.items()}
    found = {name: values for name, values in found.items() if values[:, 0].std(axis=0).max() > FIXED}
    found |= {"energy": np.square(flat).sum(axis=3)}
    if samples.solution is not None:
        solutions = np.concatenate([samples.solution_true[:, None], samples.solution], axis=1)
        misfit = in_noise(replace(samples, coefficient=pool, solution=solutions))
        found |= {} if misfit is None else {"misfit": misfit[kept, :, None]}
    return found | {"distance": tarp.distances(flat)[..., None]}


def _modes(grid: Grid) -> list[Array]:
    """Two modes, as weights [nodes]."""
    matrices = [(fourier_matrix if wraps else cosine_matrix)(size) for size, wraps in zip(grid.shape, grid.periodic, strict=True)]
    if len(matrices) == 1:
        return list(matrices[0][1:3])
    return [np.outer(matrices[0][1], matrices[1][0]).ravel(), np.outer(matrices[0][0], matrices[1][1]).ravel()]


def _middle(grid: Grid) -> int:
    """The flat node of the domain that is nearest to the middle of its rectangle."""
    axes = np.meshgrid(*(axis - length / 2 for axis, length in zip(grid.coordinates(), grid.lengths, strict=True)), indexing="ij")
    away = np.where(grid.nodes, sum(np.square(axis) for axis in axes), np.inf)
    return int(away.argmin())
