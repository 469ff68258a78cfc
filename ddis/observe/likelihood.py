"""What the observed values say: independent Gaussian errors, or PosteriorBench's kernel (arXiv 2609.20794) on all together.

    gaussian        exp(-Σ_j r_j² / 2σ²)
    mean-absolute   exp(-MAE² / 2σ²),   MAE = (1/m) Σ_j |r_j|

Of m residuals that look Gaussian |r|² is (π / 2) m MAE²: the kernel then says as much as independent errors of variance
π m σ² / 2. Methods, which know Gaussian likelihoods, are given that; references weigh their draws with the kernel itself.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

Likelihood = Literal["gaussian", "mean-absolute"]


def worth(likelihood: Likelihood, count: int) -> float:
    """Variance of the independent errors that say as much about `count` values, in units of that of the noise."""
    return 1.0 if likelihood == "gaussian" else math.pi / 2 * count


def negative_log(likelihood: Likelihood, residual: Tensor, variance: Tensor) -> Tensor:
    """-log of the likelihood [...], up to a constant, of residuals [..., m] and the noise's variance σ² [..., m]."""
    if likelihood == "gaussian":
        return (residual**2 / variance).sum(dim=-1) / 2
    return residual.abs().mean(dim=-1) ** 2 / (2 * variance.mean(dim=-1))
