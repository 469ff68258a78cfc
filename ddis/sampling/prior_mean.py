"""`prior-mean`: the mean of the unpaired coefficients, whatever was observed. The reference point that says: nothing was learned.

It is an estimate and no distribution, so there is one sample (K = 1) and no calibration. Where coefficients are constrained (see
Problem), it is P of the mean of the free field: for log-normal coefficients that is their median.
"""

from collections.abc import Iterator
from typing import Any

from pydantic import Field

from ddis.sampling.base import Batch, Method, RunSettings, State


class PriorMeanSettings(RunSettings):
    """samples: 1, all of them would be the same."""

    samples: int = Field(1, ge=1, le=1)


class PriorMean(Method[PriorMeanSettings]):
    Settings = PriorMeanSettings
    prior = None

    def sample(self, batch: Batch, prepared: Any) -> Iterator[State]:
        yield State(1, 1, 0.0, batch.prior_mean.float().expand(len(batch.generators), *batch.shape))
