"""Sparse observations y = M u + noise, and how uncertain they are."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ddis.errors import InputError
from ddis.fields.bases import Basis
from ddis.randomness import generator


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

    def take(self, solution: Tensor) -> Tensor:
        """Values [B, m] of B = n K solutions [B, S, S] at the observed nodes; chain b belongs to field b // K."""
        samples = len(solution) // len(self.index)
        return solution.flatten(1).gather(1, self.index.repeat_interleave(samples, dim=0))

    def fields(self, start: int, stop: int) -> "Observation":
        """The observation of fields start to stop - 1."""
        return Observation(self.index[start:stop], self.values[start:stop], self.covariance[start:stop])


def node_functions(basis: Basis, index: Tensor) -> Tensor:
    """Values [n, m, S, S] of the S² basis functions at the nodes index [n, m]."""
    q = basis.matrix.to(index.device)
    row, column = index // basis.size, index % basis.size
    return q.T[row][..., :, None] * q.T[column][..., None, :]


def error_covariance(index: Tensor, variance: float, basis: Basis, error_spectrum: Tensor | None = None) -> Tensor:
    """R [n, m, m] (float64): white noise of `variance`, plus an error field with independent modes of `error_spectrum` [S, S]."""
    n, m = index.shape
    covariance = variance * torch.eye(m, dtype=torch.float64, device=index.device).expand(n, m, m)
    if error_spectrum is None:
        return covariance.clone()
    functions = node_functions(basis, index).flatten(2)
    spectrum = error_spectrum.to(functions).flatten()
    return covariance + (functions * spectrum) @ functions.transpose(1, 2)


def operator_error_spectrum(errors: Tensor, basis: Basis) -> Tensor:
    """Variance [S, S] of the modes of an operator's errors [N, S, S], averaged over rings of equal |k|.

    Few held-out pairs (10 at 1 % of the pairs) cannot tell S² variances; the rings share them.
    """
    power = (basis.forward(errors.double()) ** 2).mean(0)
    k = torch.from_numpy(np.hypot.outer(basis.frequencies, basis.frequencies)).round().long().flatten().to(power.device)
    count = torch.zeros(int(k.max()) + 1, dtype=torch.float64, device=power.device)
    total = count.clone().index_add_(0, k, power.flatten())
    count.index_add_(0, k, torch.ones_like(power.flatten()))
    return (total / count)[k].reshape(power.shape)
