"""Draws of a kernel's posterior where the posterior of Gaussian errors has a closed form: its draws, weighted.

Draws of the posterior with independent errors of variance s σ², s = `worth`, are nearly draws of the kernel's. Their importance
weights w, kernel / Gaussian likelihood, make them so: N draws are worth (Σ w)² / Σ w², and one in four is drawn again in
proportion to w (systematic resampling). Nothing is approximate but by Monte Carlo.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ddis.observe.likelihood import Likelihood, negative_log, worth

OVERSAMPLED = 4  # draws for each that is kept


@dataclass(frozen=True)
class Weighted:
    """Draws kept [K, *shape], the first half of them independent of the second; mean, std [*shape] of all; ess of all."""

    draws: Tensor
    mean: Tensor
    std: Tensor
    ess: float


def weighted(draws: Tensor, predicted: Tensor, values: Tensor, variance: Tensor, likelihood: Likelihood) -> Weighted:
    """Of N draws [N, *shape] with predictions [N, m], for values [m] with noise of variance σ² [m]; one in four is kept."""
    residual = predicted.double() - values
    gaussian = negative_log("gaussian", residual, variance * worth(likelihood, len(values)))
    weights = (gaussian - negative_log(likelihood, residual, variance)).softmax(dim=0)
    mean = torch.tensordot(weights, draws.double(), 1)
    std = torch.tensordot(weights, (draws - mean).square(), 1).sqrt()
    half = len(draws) // 2
    kept = [start + systematic(weights[start : start + half], half // OVERSAMPLED) for start in (0, half)]
    return Weighted(draws[torch.cat(kept)], mean, std, float(1 / weights.square().sum()))


def systematic(weights: Tensor, count: int) -> Tensor:
    """Indices [count] in proportion to the weights: none occurs more or less often than that by more than one."""
    cumulated = (weights / weights.sum()).cumsum(dim=0).numpy()
    places = (np.arange(count) + 0.5) / count
    return torch.from_numpy(np.searchsorted(cumulated, places).clip(max=len(cumulated) - 1))
