"""How an operator errs, from held-out pairs, and what that adds to the covariance R of observations."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ddis.fields.bases import Basis
from ddis.lazy import torch
from ddis.models.denoiser import SIGMA_DATA
from ddis.observe.observation import Observation

if TYPE_CHECKING:
    from torch import Tensor

COMMON_VALUES = 10  # see error_growth
GAIN_SPREAD = 0.3  # see operator_error_model


@dataclass(frozen=True)
class OperatorError:
    """u = g G(a) + e mode by mode in `basis`, normalised.

    variance  of e at every node, where its modes are not told apart
    gain      g [*shape]; None: 1
    spectrum  variance [*shape] of the modes of e
    """

    basis: Basis
    variance: float = 0.0
    gain: Tensor | None = None
    spectrum: Tensor | None = None

    def counted(self, model: str) -> OperatorError | None:
        """As a method counts it: spectral (gain and modes), white (variance alone) or none."""
        if model == "none":
            return None
        return replace(self, gain=None, spectrum=None) if model == "white" else replace(self, variance=0.0)

    def covariance(self, observation: Observation) -> Tensor:
        """Of the error at the observed places [n, m, m], larger for fields with larger observations (see `error_growth`)."""
        functionals, index = observation.functionals, observation.index
        white = torch.diag_embed(self.variance * (~functionals.of_coefficient[index]).double())
        if self.spectrum is None:
            return white
        functions = functionals.of_basis(self.basis, index)
        spectrum = self.spectrum.to(functions).flatten()
        error = (functions * spectrum) @ functions.transpose(1, 2)
        growth = error_growth(observation.values, ~functionals.of_coefficient[index])
        return white + growth.to(error)[:, None, None] * error


def error_growth(values: Tensor, counted: Tensor | None = None) -> Tensor:
    """Factor [n] on the operator's error variance for fields with the normalised values y [n, m] observed:

        ((Σ_j y_j² + 10 s²) / ((m + 10) s²))^½,    s = `SIGMA_DATA`, the standard deviation of normalised fields

    It is 1 for a field of common size, since a larger solution is predicted with a larger error: powers of 1/2 to 1 of the mean
    square describe fresh fields equally well (benchmarks/results/operator_error.md). The ten values of common size keep few
    observations near zero from making the operator perfect.

    counted: which of the values are of the solution, bool [n, m], the others are left out; None: all.
    """
    common = SIGMA_DATA**2
    squares, number = values.double() ** 2, torch.tensor(float(values.shape[1]), dtype=torch.float64)
    if counted is not None and not bool(counted.all()):
        squares, number = squares * counted, counted.sum(dim=1).double()
    total = squares.sum(dim=1) + COMMON_VALUES * common
    return (total / (common * (number.to(total) + COMMON_VALUES))).sqrt()


def operator_error_model(predictions: Tensor, solutions: Tensor, basis: Basis) -> tuple[Tensor, Tensor]:
    """How an operator errs, from held-out pairs: gain g [*shape] and variance [*shape] in u = g G(a) + e, mode by mode.

    The likelihood asks for what separates u from the operator's prediction, independent of it. An error u - G(a) is not: a bad
    operator that gives half of u errs most where u is large. Few held-out pairs (10 at 1 % of the pairs) cannot tell S² gains
    and variances; rings of equal |k| share them. Linear regression with g = 1 ± `GAIN_SPREAD` beforehand; the variance is that
    of leave-one-out residuals, which count the uncertainty of g, on fields of common size (see `error_growth`).

    Args:
        predictions, solutions: normalised [N, *shape].
    """
    weight = error_growth(solutions.flatten(1)).rsqrt().reshape(-1, *(1,) * len(basis.shape))
    p, u = (basis.forward(weight * fields.double()) for fields in (predictions, solutions))
    ring, number = rings(basis)

    def ring_sum(modes: Tensor) -> Tensor:
        return torch.zeros(len(number), dtype=torch.float64, device=p.device).index_add_(0, ring.to(p.device), modes.flatten())

    count = len(p) * number.to(p.device)
    ridge = ring_sum(((u - p) ** 2).sum(0)) / count / GAIN_SPREAD**2
    informed = (ring_sum((p**2).sum(0)) + ridge).clamp_min(torch.finfo(p.dtype).tiny)
    gain = (1 + ring_sum((p * (u - p)).sum(0)) / informed)[ring].reshape(basis.shape)
    left_out = (u - gain * p) / (1 - p**2 / informed[ring].reshape(gain.shape)).clamp_min(torch.finfo(p.dtype).tiny)
    variance = ring_sum((left_out**2).sum(0)) / count
    return gain, variance[ring].reshape(gain.shape)


def rings(basis: Basis) -> tuple[Tensor, Tensor]:
    """Ring of equal |k| of every mode, flattened, and number of modes in each ring.

    Rings are one period per unit length wide on periodic grids, and half a period on others.
    """
    periodic = all(name == "fourier" for name in basis.names)
    k = torch.from_numpy(np.sqrt(basis.half_periods_squared) / (2 if periodic else 1)).round().long().flatten()
    number = torch.bincount(k)
    return (number > 0).cumsum(0)[k] - 1, number[number > 0].double()
