"""The misfit of a file of samples, of any kind of observation."""

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
