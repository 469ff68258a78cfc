"""Observations between the nodes: the solution is interpolated bilinearly."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ddis.fields.bases import Basis
from ddis.sampling.observation import Observation, node_functions


@dataclass(frozen=True)
class Interpolation:
    """Bilinear interpolation at m points: corners (flat nodes) and their weights, both [m, 4]; fraction [m, 2] of the cell."""

    corners: Tensor
    weights: Tensor
    fraction: Tensor

    def __call__(self, solution: Tensor) -> Tensor:
        """Values [B, m] of solutions [B, S, S] at the points."""
        return (solution.flatten(1)[:, self.corners] * self.weights.to(solution)).sum(dim=-1)


def interpolation(x: np.ndarray, y: np.ndarray, resolution: int, periodic: bool) -> Interpolation:
    """Interpolation at the points x, y [m] of the unit square, on S = `resolution` nodes per side.

    Nodes are at i / (S - 1), on periodic domains at i / S, where the last cell ends at the first node.
    """
    lower, upper, part = [], [], []
    for axis in (x, y):
        place = axis * (resolution if periodic else resolution - 1)
        nearest = np.round(place)
        place = np.where(np.abs(place - nearest) < 1e-6, nearest, place)  # so that a node is a node
        cell = np.minimum(np.floor(place).astype(np.int64), resolution - 1 if periodic else resolution - 2)
        lower.append(cell)
        upper.append((cell + 1) % resolution)
        part.append(place - cell)
    corners = [i * resolution + j for i in (lower[0], upper[0]) for j in (lower[1], upper[1])]
    weights = [u * v for u in (1 - part[0], part[0]) for v in (1 - part[1], part[1])]
    stacked = (np.stack(arrays, axis=1) for arrays in (corners, weights, part))
    return Interpolation(*(torch.from_numpy(array) for array in stacked))


@dataclass(frozen=True)
class PointObservation(Observation):
    """Observations of one solution at m points anywhere; `index` [1, m] numbers the points."""

    interpolation: Interpolation

    def sensors(self, solution: Tensor) -> Tensor:
        """Values [B, m] of solutions [B, S, S] at the points."""
        return self.interpolation(solution)


def point_covariance(places: Interpolation, variance: Tensor, basis: Basis, error_spectrum: Tensor | None) -> Tensor:
    """R [1, m, m] (float64): independent errors of `variance` [m], plus an error field with modes of `error_spectrum` [S, S]."""
    covariance = torch.diag(variance)
    if error_spectrum is not None:
        functions = (node_functions(basis, places.corners) * places.weights[..., None, None]).sum(dim=1).flatten(1)
        covariance = covariance + (functions * error_spectrum.to(functions).flatten()) @ functions.T
    return covariance[None]


def interpolation_variance(places: Interpolation, solutions: Tensor, periodic: bool) -> Tensor:
    """Mean squared error [m] of bilinear interpolation, to leading order, over smooth solutions [N, S, S].

    u - (interpolated u) = -1/2 f (1 - f) h² u_xx - 1/2 g (1 - g) h² u_yy + ..., at the fractions f, g of a cell of side h.
    """
    f = places.fraction
    error = torch.zeros(len(solutions), len(f), dtype=torch.float64)
    for axis, part in ((1, f[:, 0]), (2, f[:, 1])):
        bend = torch.roll(solutions, 1, axis) - 2 * solutions + torch.roll(solutions, -1, axis)
        if not periodic:  # the last nodes have one neighbour only
            size = bend.shape[axis]
            inner = torch.arange(size, device=bend.device).clamp(1, size - 2)
            bend = bend.index_select(axis, inner)
        error = error - 0.5 * part * (1 - part) * places(bend.double())
    return (error**2).mean(dim=0)
