"""Importance weights that put the solver in the place of the network.

Samples that follow prior x N(y; M F(a), R_F), F the network and R_F with its error, are samples of prior x N(y; M G(a), R), G the
solver and R without that error, if they are weighted by

    w(a) ∝ N(y; M G(a), R) / N(y; M F(a), R_F).

The prior cancels. With weights of sum 1, 1 / Σ w² of K samples are effective: K if the solver agrees with the network, 1 if one
sample is all that is left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ddis.lazy import torch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


def whitened(values: Tensor, predicted: Tensor, covariance: Tensor) -> Tensor:
    """R^(-1/2) (y - predicted) [m, K], of values y [m], predictions [K, m] and R [m, m], float64."""
    root = torch.linalg.cholesky(covariance.double())
    return torch.linalg.solve_triangular(root, (values.double() - predicted).T, upper=False)


def log_likelihood(values: Tensor, predicted: Tensor, covariance: Tensor) -> Tensor:
    """ln N(y; predicted, R) [K] up to a constant, as `whitened`; -∞ for predictions that are not finite."""
    return (-0.5 * whitened(values, predicted, covariance).square().sum(dim=0)).nan_to_num(nan=-torch.inf, neginf=-torch.inf)


def weights(log_ratio: Tensor) -> Tensor:
    """Weights [K] of sum 1 from their logarithms up to a constant; all 0 if no sample has any."""
    return log_ratio.softmax(dim=0) if bool((log_ratio > -torch.inf).any()) else torch.zeros_like(log_ratio)


def effective(weights: NDArray[np.float64]) -> float:
    """Effective number of samples under weights [K] of sum 1; 0 if all are 0."""
    return float(1 / (weights**2).sum()) if weights.any() else 0.0
