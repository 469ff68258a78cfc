"""What a posterior gives back: samples with their moments, how they fit the observations, and what they cost."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ddis.importance import whitened
from ddis.lazy import special
from ddis.observe.observation import Observation
from ddis.sampling.base import Cost, Method

PLAUSIBLE = 0.999  # probability of a chi-square below the limit

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Misfit:
    """How the samples' predictions differ from the observations, in units of what R explains.

    ratio       root mean square of R^(-1/2) (y - M G(a)) over samples and observations; about 1 if all is as it should be
    chi_square  m ratio², limit: what it exceeds with a probability of 0.1 % if R holds
    worst       number of the observation that fits worst (its row, from 0), and by how many standard deviations
    """

    ratio: float
    chi_square: float
    limit: float
    worst: int
    worst_deviations: float

    @property
    def explained(self) -> bool:
        return self.chi_square <= self.limit


@dataclass(frozen=True)
class Spent:
    """Evaluations per sample, of the prior and of the operator with its products; seconds in all.

    solver_calls  of the solver that corrects the operator, per sample, without the one of `Result.predicted`
    """

    prior_evaluations: float
    operator_evaluations: float
    seconds: float
    solver_calls: float = 0.0


@dataclass(frozen=True)
class Result:
    """Posterior samples of one coefficient, in physical units.

    samples [K, *shape]; mean, std [*shape]: in closed form where the method has it, else of the samples (n - 1)
    predicted [K, m]: what the operator predicts of each sample at the observed places, with its gains where R holds its error;
    where a solver corrects it, what the solver says, against R of the noise alone
    method: that drew them, with its settings
    failed: samples that were not finite and are left out
    """

    samples: Array
    mean: Array
    std: Array
    predicted: Array
    misfit: Misfit
    cost: Spent
    method: Method[Any]
    failed: int = 0


@dataclass(frozen=True)
class Drawn:
    """Normalised free fields [B, *shape] of all chains, closed-form moments [n, *shape] or None, and their cost."""

    x0: Tensor
    mean: Tensor | None
    std: Tensor | None
    cost: Cost


def misfit_of(observation: Observation, predicted: Tensor) -> Misfit:
    """The misfit of predictions [K, m]. If R holds, R^(-1/2) (y - M G(a)) of a posterior sample is standard normal."""
    covariance = observation.covariance[0].double()
    residual = observation.values.double() - predicted
    white = whitened(observation.values[0], predicted, covariance)
    chi_square = float(white.square().sum(dim=0).mean())
    count = residual.shape[1]
    deviations = residual.square().mean(dim=0).sqrt() / covariance.diagonal().sqrt()
    worst = int(deviations.argmax())
    limit = float(2 * special.gammaincinv(count / 2, PLAUSIBLE))  # a quantile of χ²
    return Misfit((chi_square / count) ** 0.5, chi_square, limit, worst, float(deviations[worst]))
