"""Values that were observed of n fields, and how uncertain they are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from ddis.lazy import torch
from ddis.observe.base import Functionals
from ddis.observe.likelihood import Likelihood, negative_log, worth

if TYPE_CHECKING:
    from torch import Tensor

NOISELESS_VARIANCE = 1e-6  # of the observed field's variance: the floor of R, for observations without noise too


class ErrorModel(Protocol):
    """How an operator errs, as far as the likelihood counts it."""

    def covariance(self, observation: Observation) -> Tensor:
        """What the operator's error adds to R, [n, m, m]."""


@dataclass(frozen=True)
class Observation:
    """Observed values of n fields, normalised, m of each.

    functionals  all P that might be observed
    index        which of them each field shows, [n, m]
    values       [n, m], float64
    variance     of independent errors: noise, interpolation; [n, m] or [m], float64
    error        the operator's own error; None: not counted
    likelihood   that is asked for; variance is then that of independent errors that say as much
    """

    functionals: Functionals
    index: Tensor
    values: Tensor
    variance: Tensor
    error: ErrorModel | None = None
    likelihood: Likelihood = "gaussian"

    @cached_property
    def covariance(self) -> Tensor:
        """R [n, m, m] (float64) of what separates the values from the operator's prediction."""
        independent = torch.diag_embed(self.variance.expand(self.values.shape))
        return independent if self.error is None else independent + self.error.covariance(self)

    def take(self, fields: Tensor) -> Tensor:
        """Values [B, m] of B = n K fields (see Functionals.stack) as they are observed; chain b belongs to field b // K."""
        samples = len(fields) // len(self.index)
        return self.functionals(fields, self.index.repeat_interleave(samples, dim=0))

    def misfit(self, predicted: Tensor) -> Tensor:
        """Predictions minus observations [B, m], in the predictions' dtype."""
        samples = len(predicted) // len(self.index)
        return predicted - self.values.to(predicted).repeat_interleave(samples, dim=0)

    def negative_log_likelihood(self, predicted: Tensor) -> Tensor:
        """-ln p(y | predicted) [B] up to a constant, of predictions [B, m]; float64. NaN of those that are not finite.

        Where the likelihood is not Gaussian, the operator's error adds to its variance, not to its form.
        """
        residual, covariance = self.misfit(predicted.double()), self.covariance.double()
        if self.likelihood == "gaussian":
            n, m = self.values.shape
            white = torch.linalg.solve_triangular(
                torch.linalg.cholesky(covariance), residual.reshape(n, -1, m).transpose(1, 2), upper=False
            )
            return white.square().sum(dim=1).flatten() / 2
        variance = covariance.diagonal(dim1=-2, dim2=-1) / worth(self.likelihood, self.values.shape[1])
        return negative_log(self.likelihood, residual, variance.repeat_interleave(len(residual) // len(variance), dim=0))
