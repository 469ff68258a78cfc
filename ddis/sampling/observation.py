"""Sparse observations y = M u + noise, and how uncertain they are."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ddis.data.normalisation import SIGMA_DATA
from ddis.errors import InputError
from ddis.fields.bases import Basis
from ddis.randomness import generator

COMMON_VALUES = 10  # see error_growth
GAIN_SPREAD = 0.3  # see operator_error_model


def available_nodes(resolution: int, periodic: bool) -> np.ndarray:
    """Flat indices of the nodes that may be observed: the interior ones, or all on periodic domains."""
    inside = np.ones((resolution, resolution), dtype=bool)
    if not periodic:
        inside[[0, -1], :] = inside[:, [0, -1]] = False
    return np.flatnonzero(inside)


def draw_nodes(resolution: int, count: int, seed: int, field: int, periodic: bool) -> np.ndarray:
    """Sorted flat indices [count] of distinct observed nodes, drawn from (seed, field) alone.

    Raises InputError if there are more observations than nodes, or none.
    """
    nodes = available_nodes(resolution, periodic)
    if not 1 <= count <= len(nodes):
        raise InputError(f"observation count {count} at resolution {resolution}; accepted: 1 to {len(nodes)}")
    return np.sort(generator(seed, "mask", field).choice(nodes, size=count, replace=False))


@dataclass(frozen=True)
class Observation:
    """Observed values of n normalised solutions, at m nodes each.

    index       flat nodes [n, m]
    values      normalised observations [n, m]
    covariance  R [n, m, m] of what separates them from the operator's prediction: noise and the operator's own error
    """

    index: Tensor
    values: Tensor
    covariance: Tensor

    def sensors(self, solution: Tensor) -> Tensor:
        """All that might be observed of solutions [B, S, S], as [B, P]: here the nodes. `index` counts in it."""
        return solution.flatten(1)

    def take(self, solution: Tensor) -> Tensor:
        """Values [B, m] of B = n K solutions [B, S, S] at the observed nodes; chain b belongs to field b // K."""
        samples = len(solution) // len(self.index)
        return self.sensors(solution).gather(1, self.index.repeat_interleave(samples, dim=0))

    def misfit(self, solution: Tensor) -> Tensor:
        """Solutions [B, S, S] minus observations at the observed nodes [B, m], in the solutions' dtype."""
        samples = len(solution) // len(self.index)
        return self.take(solution) - self.values.to(solution).repeat_interleave(samples, dim=0)

    def fields(self, start: int, stop: int) -> "Observation":
        """The observation of fields start to stop - 1."""
        part = slice(start, stop)
        return replace(self, index=self.index[part], values=self.values[part], covariance=self.covariance[part])


def node_functions(basis: Basis, index: Tensor) -> Tensor:
    """Values [n, m, S, S] of the S² basis functions at the nodes index [n, m]."""
    q = basis.matrix.to(index.device)
    row, column = index // basis.size, index % basis.size
    return q.T[row][..., :, None] * q.T[column][..., None, :]


def error_growth(values: Tensor) -> Tensor:
    """Variance [n] of an operator's error on fields of normalised values [n, m], in units of that on fields of common size.

    The relative error is about the same for all fields of a problem while part of the error does not depend on them: between the
    two, the variance is taken to grow like the root mean square of the values. It counts ten values of common size as observed
    too, so that a few values near zero do not make an operator perfect.
    """
    common = SIGMA_DATA**2
    total = (values.double() ** 2).sum(dim=1) + COMMON_VALUES * common
    return (total / (common * (values.shape[1] + COMMON_VALUES))).sqrt()


def error_covariance(
    index: Tensor, variance: float, basis: Basis, error_spectrum: Tensor | None = None, growth: Tensor | None = None
) -> Tensor:
    """R [n, m, m] (float64): white noise of `variance`, plus an error field with independent modes of `error_spectrum` [S, S].

    growth: factor [n] of the error field's variance (see `error_growth`); None: 1.
    """
    n, m = index.shape
    covariance = variance * torch.eye(m, dtype=torch.float64, device=index.device).expand(n, m, m)
    if error_spectrum is None:
        return covariance.clone()
    functions = node_functions(basis, index).flatten(2)
    spectrum = error_spectrum.to(functions).flatten()
    error = (functions * spectrum) @ functions.transpose(1, 2)
    return covariance + (error if growth is None else growth.to(error)[:, None, None] * error)


def operator_error_model(predictions: Tensor, solutions: Tensor, basis: Basis) -> tuple[Tensor, Tensor]:
    """How an operator errs, from held-out pairs: gain g [S, S] and variance [S, S] in u = g G(a) + e, mode by mode.

    The likelihood asks for what separates u from the operator's prediction, independent of it. An error u - G(a) is not: a bad
    operator that gives half of u errs most where u is large. Few held-out pairs (10 at 1 % of the pairs) cannot tell S² gains
    and variances; rings of equal |k| share them. Linear regression with g = 1 ± `GAIN_SPREAD` beforehand; the variance is that
    of leave-one-out residuals, which count the uncertainty of g, on fields of common size (see `error_growth`).

    Args:
        predictions, solutions: normalised [N, S, S].
    """
    weight = error_growth(solutions.flatten(1)).rsqrt()[:, None, None]
    p, u = (basis.forward(weight * fields.double()) for fields in (predictions, solutions))
    ring, number = rings(basis)

    def ring_sum(modes: Tensor) -> Tensor:
        return torch.zeros(len(number), dtype=torch.float64, device=p.device).index_add_(0, ring.to(p.device), modes.flatten())

    count = len(p) * number.to(p.device)
    ridge = ring_sum(((u - p) ** 2).sum(0)) / count / GAIN_SPREAD**2
    informed = (ring_sum((p**2).sum(0)) + ridge).clamp_min(torch.finfo(p.dtype).tiny)
    gain = (1 + ring_sum((p * (u - p)).sum(0)) / informed)[ring].reshape(basis.size, basis.size)
    left_out = (u - gain * p) / (1 - p**2 / informed[ring].reshape(gain.shape)).clamp_min(torch.finfo(p.dtype).tiny)
    variance = ring_sum((left_out**2).sum(0)) / count
    return gain, variance[ring].reshape(gain.shape)


def rings(basis: Basis) -> tuple[Tensor, Tensor]:
    """Ring of equal |k| of every mode [S²], and number of modes in each ring."""
    k = torch.from_numpy(np.hypot.outer(basis.frequencies, basis.frequencies)).round().long().flatten()
    return k, torch.bincount(k).double()
