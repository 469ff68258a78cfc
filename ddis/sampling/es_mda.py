"""`es-mda`: ensemble smoother with multiple data assimilation. No gradients: any solver will do.

Source: Emerick and Reynolds, Ensemble smoother with multiple data assimilation, Computers & Geosciences 55 (2013), algorithm of
section 3. The K samples of a field are one ensemble, drawn from N(μ, C), the mean and spectrum of the free field. For each of n
assimilations with α = n (so that Σ 1/α = 1), u_j = M G(x_j) and e_j ~ N(0, R):

    x_j <- x_j + C_xu (C_uu + α R)⁻¹ (y + √α e_j - u_j)

with the covariances C_xu, C_uu of the ensemble. For a linear G it is exact in the limit of many samples; K samples span K - 1
directions, and the spread is too small where K is not large against the number of observed values.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydantic import Field

from ddis.errors import InputError
from ddis.lazy import torch
from ddis.sampling.base import Batch, ErrorChoice, Evaluations, Method, RunSettings, Size, State
from ddis.sampling.gauss_newton import draw_observation_noise

if TYPE_CHECKING:
    from torch import Tensor


class ESMDASettings(RunSettings):
    """samples: K, the ensemble; assimilations: n; error_model: as for ddis-gn."""

    samples: int = Field(256, ge=2)
    assimilations: int = Field(4, ge=1)
    error_model: ErrorChoice = "spectral"


class ESMDA(Method[ESMDASettings]):
    Settings = ESMDASettings
    prior = None
    uses_operator = True
    gradients = False
    ensemble = True

    @property
    def error_model(self) -> ErrorChoice:
        return self.settings.error_model

    def cost(self, size: Size) -> Evaluations:
        return Evaluations(operator=self.settings.assimilations)

    def sample(self, batch: Batch, prepared: None) -> Iterator[State]:
        n, alpha = len(batch.observation.values), float(self.settings.assimilations)
        if len(batch.generators) < 2 * n:
            raise InputError("method es-mda: an ensemble of at least 2 samples; raise samples")
        spectrum = batch.spectrum.to(batch.device).double()
        mean = batch.basis.forward(batch.prior_mean)
        x = (mean + spectrum.sqrt() * batch.draw_white(*batch.shape)).reshape(n, -1, spectrum.numel())
        values, covariance = batch.observation.values.double()[:, None], batch.observation.covariance.double()
        for step in range(self.settings.assimilations):
            with torch.no_grad():
                u = batch.predict(batch.basis.inverse(x.reshape(-1, *batch.shape)).float()).double().reshape(n, x.shape[1], -1)
            target = values + alpha**0.5 * draw_observation_noise(batch)
            x = torch.stack([assimilate(*parts, alpha) for parts in zip(x, u, target, covariance, strict=True)])
            fields = batch.basis.inverse(x.reshape(-1, *batch.shape)).float()
            yield State(step + 1, self.settings.assimilations, 0.0, fields)


def assimilate(x: Tensor, u: Tensor, target: Tensor, covariance: Tensor, alpha: float) -> Tensor:
    """The ensemble [K, P] after one assimilation; members whose prediction u [K, m] is not finite are NaN, and take no part."""
    kept = u.isfinite().all(dim=1)
    away, predicted = (part[kept] - part[kept].mean(dim=0) for part in (x, u))
    count = max(1, len(away) - 1)
    inner = predicted.T @ predicted / count + alpha * covariance
    weights = torch.linalg.solve(inner, (target - u).T).T  # NaN for the members that are lost
    return x + weights @ (predicted.T @ away) / count
