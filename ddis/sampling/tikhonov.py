"""`tikhonov`: regularised least squares, or kriging, through the operator. A reference point: no diffusion prior takes part.

The free field is taken as Gaussian, with the mean μ of the unpaired coefficients and their spectrum C in the problem's basis. A
sample is the minimum of

    Q(x) = |R^(-1/2) (y + e - M G(x))|² + |C^(-1/2) (x - x~)|²,    x~ ~ N(μ, C),  e ~ N(0, R);

x~ = μ and e = 0 would give the classical estimate. For linear G this is Matheron's rule: the samples are those of the Gaussian
posterior. For others it is known as randomised maximum likelihood (Oliver, He and Reynolds, Conditioning permeability fields to
pressure data, ECMOR V, 1996). Gauss-Newton iterations from x = μ, with the Jacobian J of M G at x (at 0 for linear problems):

    x <- x + t (x~ - x + C Jᵀ (J C Jᵀ + R)⁻¹ (y + e - M G(x) - J (x~ - x))),    t the first of 1, 1/2, 1/4, 1/8 that makes Q fall
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydantic import Field

from ddis.lazy import torch
from ddis.models.denoiser import per_field
from ddis.sampling.base import Batch, ErrorChoice, Evaluations, Method, RunSettings, Size, State
from ddis.sampling.gauss_newton import (
    DenseUpdate,
    Prepared,
    SharedJacobian,
    draw_observation_noise,
    gauss_newton_cost,
    make_update,
)
from ddis.sampling.matrix_free import LeadingModes, MatrixFreeUpdate

if TYPE_CHECKING:
    from torch import Tensor

FALL = 1e-3  # of Q, twice a negative log density: what is less does not matter
TOLERANCE = 0.01  # of a step, in standard deviations of R; the next one makes up for it


class TikhonovSettings(RunSettings):
    """iterations: Gauss-Newton iterations, at most; error_model: as for ddis-gn."""

    iterations: int = Field(6, ge=1)
    error_model: ErrorChoice = "spectral"


class Tikhonov(Method[TikhonovSettings]):
    Settings = TikhonovSettings
    prior = None
    uses_operator = True
    weighable = True

    @property
    def error_model(self) -> ErrorChoice:
        return self.settings.error_model

    def cost(self, size: Size) -> Evaluations:
        tried = 5  # step lengths, and the start
        return gauss_newton_cost(size, self.settings.iterations, size.linear, self.settings, tried)

    def prepare(self, batch: Batch) -> Prepared:
        return SharedJacobian(batch) if batch.problem.linear else LeadingModes(batch)

    def sample(self, batch: Batch, prepared: Prepared) -> Iterator[State]:
        s = self.settings
        fit = RandomisedFit(batch, make_update(batch, prepared, TOLERANCE))
        for step in range(s.iterations):
            moved = fit.iterate()
            yield State(step + 1, s.iterations, 0.0, fit.samples())
            if not moved:
                return


class RandomisedFit:
    """The chains [B, *shape] of a batch, in the basis and float64, each on the way to the minimum of its own Q."""

    def __init__(self, batch: Batch, update: DenseUpdate | MatrixFreeUpdate):
        self.batch, self.basis, self.update = batch, batch.basis, update
        self.spectrum = batch.spectrum.to(batch.device).double()
        self.root = torch.linalg.cholesky(batch.observation.covariance.double())
        mean = self.basis.forward(batch.prior_mean)
        self.draw = mean + self.spectrum.sqrt() * batch.draw_white(*batch.shape)
        self.target = batch.observation.values.double()[:, None] + draw_observation_noise(batch)
        self.x = mean.expand_as(self.draw)
        self.predicted = self._predict(self.x)
        self.objective = self._objective(self.x, self.predicted)

    def samples(self) -> Tensor:
        """Normalised free fields [B, *shape], float32; NaN for chains whose operator gave nothing finite."""
        lost = ~self.objective.isfinite()
        return self._field(self.x).masked_fill(per_field(lost, self.x), torch.nan)

    def iterate(self) -> bool:
        """One Gauss-Newton iteration with a step length of its own for every chain; False if no chain moved."""
        step = self._full_step()
        moved = torch.zeros_like(self.objective, dtype=torch.bool)
        for length in (1.0, 0.5, 0.25, 0.125):
            trial = self.x + length * step
            predicted = self._predict(trial)
            objective = self._objective(trial, predicted)
            better = ~moved & (objective < self.objective - FALL)
            self.x = torch.where(per_field(better, trial), trial, self.x)
            self.predicted = torch.where(better[:, None], predicted, self.predicted)
            self.objective = torch.where(better, objective, self.objective)
            moved |= better
            if bool(moved.all()):
                break
        return bool(moved.any())

    def _field(self, x: Tensor) -> Tensor:
        return self.basis.inverse(x).float()

    def _predict(self, x: Tensor) -> Tensor:
        """M G(x) [B, m], float64."""
        with torch.no_grad():
            return self.batch.predict(self._field(x)).double()

    def _objective(self, x: Tensor, predicted: Tensor) -> Tensor:
        """Q(x) [B]; infinite where the prediction is not finite."""
        residual = self.target - predicted.reshape(self.target.shape)
        fit = torch.linalg.solve_triangular(self.root, residual.transpose(1, 2), upper=False).square().sum(dim=1).flatten()
        away = torch.where(self.spectrum > 0, (x - self.draw).square() / self.spectrum, 0.0).sum(dim=tuple(range(1, x.ndim)))
        return (fit + away).nan_to_num(nan=torch.inf, posinf=torch.inf)

    def _full_step(self) -> Tensor:
        """The Gauss-Newton step [B, *shape]; NaN for a chain whose Jacobian is."""
        correction = self.update(self._field(self.x), self.draw, self.target, self.spectrum)
        return self.draw - self.x + correction.reshape(self.x.shape)
