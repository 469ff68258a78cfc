"""The misfit of a file of samples, of any kind of observation: in units of the fields, or of the noise."""

import numpy as np
from numpy.typing import NDArray

from ddis.data.store import Samples
from ddis.evaluation import metrics


def misfits(samples: Samples) -> NDArray[np.float64]:
    """[n, K]; in units of the attribute `solution_std`, the standard deviation of the training solutions, as the noise is."""
    assert samples.solution is not None
    if samples.seen is not None:
        return samples.seen.misfit(samples.solution, samples.coefficient)
    scale = samples.attributes.get("solution_std") or float(samples.solution_true.std(dtype=np.float64))
    return metrics.misfit(samples.solution, samples.observation, samples.mask, scale)


def in_noise(samples: Samples) -> NDArray[np.float64] | None:
    """[n, K], of Gaussian noise a function of the likelihood alone: every value counts in units of its own noise.

    Values without noise are left out; None if there are no others, and of older files that do not say the noise of each value.
    Where all have one noise it is `misfits`, up to a factor.
    """
    if samples.solution is None or not samples.attributes["noise"] > 0:
        return None
    if samples.seen is None:
        return misfits(samples)
    if samples.seen.noise is None:
        return None
    seen, noise = samples.seen, np.asarray(samples.seen.noise, np.float64)
    return seen.misfit(samples.solution, samples.coefficient, np.where(noise > 0, noise * seen.units, np.inf))
