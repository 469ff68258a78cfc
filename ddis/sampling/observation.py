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


def operator_error_spectrum(errors: Tensor, basis: Basis, solutions: Tensor | None = None) -> Tensor:
    """Variance [S, S] of the modes of an operator's errors [N, S, S], averaged over rings of equal |k|.

    With the normalised solutions [N, S, S], of the errors on fields of common size (see `error_growth`). Few held-out pairs (10
    at 1 % of the pairs) cannot tell S² variances; the rings share them.
    """
    errors = errors.double()
    if solutions is not None:
        errors = errors / error_growth(solutions.flatten(1)).sqrt()[:, None, None]
    power = (basis.forward(errors) ** 2).mean(0)
    k = torch.from_numpy(np.hypot.outer(basis.frequencies, basis.frequencies)).round().long().flatten().to(power.device)
    count = torch.zeros(int(k.max()) + 1, dtype=torch.float64, device=power.device)
    total = count.clone().index_add_(0, k, power.flatten())
    count.index_add_(0, k, torch.ones_like(power.flatten()))
    return (total / count)[k].reshape(power.shape)
